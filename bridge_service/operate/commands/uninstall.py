"""`uninstall`: removes schema `bridge` and its triggers from the database."""

import typer

from bridge_service.install.uninstall import uninstall
from bridge_service.operate.output import Output, place_of
from bridge_service.settings import Settings


def run(settings: Settings, output: Output, *, ask: bool) -> bool:
    """Remove the bridge; return False if the operator said no."""
    question = f"Take the bridge and all that it knows out of {place_of(settings.database_url)}?"
    if ask and not typer.confirm(question):
        output.complain("Nothing was changed.")
        return False
    if uninstall(settings.database_url):
        output.say("Took schema bridge and its triggers out.", "green")
    else:
        output.say("There was nothing to take out.")
    return True
