"""`migrate`: schema `bridge`, its functions and its triggers, created or brought up to date; or the SQL for it."""

from collections.abc import Sequence
from dataclasses import asdict

from bridge_service.errors import TablesUnfit
from bridge_service.install import plan as migrate
from bridge_service.install.report import Report
from bridge_service.operate.output import Output, counted
from bridge_service.settings import Settings

_UP_TO_DATE = "Schema bridge is up to date."


def run(
    settings: Settings,
    output: Output,
    runtime_role: str | None,
    reader_roles: Sequence[str],
    app_role: str | None = None,
) -> bool:
    """Migrate and say what was done."""
    try:
        report = migrate.migrate(
            settings.database_url, runtime_role=runtime_role, reader_roles=reader_roles, app_role=app_role
        )
    except TablesUnfit as error:
        return _refused(error, output)
    done = [line for line, changes in _lines(report) if changes]
    for line in done:
        output.say(line)
    if report.kept:
        output.say(f"Left alone what the app replaced: {', '.join(report.kept)}.")
    if not done:
        output.say(_UP_TO_DATE, "green")
    if runtime_role:
        output.say(f"Role {runtime_role} may call the bridge's functions.")
    if app_role:
        output.say(f"Role {app_role} may call bridge.pause, bridge.resume and bridge.state.")
    for role in reader_roles:
        output.say(f"Role {role} may read the bridge's tables.")
    output.document(asdict(report))
    return True


def _lines(report: Report) -> list[tuple[str, list[str]]]:
    """Return the lines that tell of a run, each with its changes; a line without changes is not printed."""
    return [
        (f"Found in the schema, which a restore left without its rows: {', '.join(report.found)}.", report.found),
        *((f"Applied {name}.", [name]) for name in report.migrations),
        (f"Laid {counted(len(report.functions), 'function')}.", report.functions),
        (f"Made the triggers {', '.join(report.triggers)}.", report.triggers),
        (f"Bound to the app's tables {', '.join(report.bound)}.", report.bound),
        (f"Set right the sequences {', '.join(report.sequences)}: they stood behind their tables.", report.sequences),
    ]


def plan(
    settings: Settings,
    output: Output,
    runtime_role: str | None,
    reader_roles: Sequence[str],
    app_role: str | None = None,
) -> bool:
    """Print what `run` would execute, for psql."""
    try:
        report, script = migrate.plan(
            settings.database_url, runtime_role=runtime_role, reader_roles=reader_roles, app_role=app_role
        )
    except TablesUnfit as error:
        return _refused(error, output)
    if script:
        output.script("-- What `migrate` would run here now. As the same role: psql -v ON_ERROR_STOP=1 -f FILE")
    else:
        output.script(f"-- {_UP_TO_DATE}")
    if report.kept:
        output.script(f"-- Left alone what the app replaced: {', '.join(report.kept)}.")
    if script:
        output.script(script)
    output.document({**asdict(report), "sql": script})
    return True


def _refused(error: TablesUnfit, output: Output) -> bool:
    for fault in error.faults:
        output.complain(f"{fault}: nothing was changed")
    output.document({"error": str(error)})
    return False
