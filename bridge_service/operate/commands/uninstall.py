"""`uninstall`: removes schema `bridge` and its triggers from the database."""

import psycopg2.extensions
import typer

from bridge_service.install.uninstall import uninstall
from bridge_service.operate.output import Output
from bridge_service.settings import Settings


def run(settings: Settings, output: Output, *, ask: bool) -> bool:
    """Remove the bridge; return False if the operator said no."""
    if ask:
        parts = psycopg2.extensions.parse_dsn(settings.database_url)
        where = f"{parts.get('dbname', 'the database')} on {parts.get('host', 'this machine')}"
        if not typer.confirm(f"Take the bridge and all that it knows out of {where}?"):
            output.complain("Nothing was changed.")
            return False
    if uninstall(settings.database_url):
        output.say("Took schema bridge and its triggers out.", "green")
    else:
        output.say("There was nothing to take out.")
    return True
