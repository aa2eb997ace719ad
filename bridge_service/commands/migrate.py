"""`migrate`: schema `bridge`, its functions and its triggers, created or brought up to date."""

from bridge_service import migrate
from bridge_service.output import Output, counted
from bridge_service.settings import Settings


def run(settings: Settings, output: Output, runtime_role: str | None, reader_role: str | None) -> bool:
    """Migrate and say what was done."""
    report = migrate.migrate(settings.database_url, runtime_role=runtime_role, reader_role=reader_role)
    for name in report.migrations:
        output.say(f"Applied {name}.")
    if report.functions:
        output.say(f"Laid {counted(len(report.functions), 'function')}.")
    if report.triggers:
        output.say(f"Made the triggers {', '.join(report.triggers)}.")
    if report.kept:
        output.say(f"Left alone what the app replaced: {', '.join(report.kept)}.")
    if not (report.migrations or report.functions or report.triggers):
        output.say("Schema bridge is up to date.", "green")
    if runtime_role:
        output.say(f"Role {runtime_role} may call the bridge's functions.")
    if reader_role:
        output.say(f"Role {reader_role} may read the bridge's tables.")
    return True
