"""The operator's command line: what there is to type, and which exit code means what.

A command is a function here, with its options and its help, and a module of the same name in commands/ that does the
work and is imported only when the command is called: each needs other libraries, and not all of them are there
everywhere.

Exit codes: 0 all is well, 1 what was asked does not hold, 2 wrong usage, 78 wrong configuration.
"""

import io
import os
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import typer
from typer.exceptions import TyperException

from bridge_service.errors import EX_CONFIG, BridgeError, ConfigurationError, type_of
from bridge_service.operate.output import Output
from bridge_service.settings import REQUIRED as WITH_REDIS
from bridge_service.settings import Settings, secrets
from bridge_service.telemetry.logs import place_of

app = typer.Typer(
    help="Look after the bridge. Exit codes: 0 well, 1 it does not hold, 2 usage, 78 configuration.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # it would show local variables, URLs with their passwords among them
    context_settings={"help_option_names": ["-h", "--help"]},
)
dead = typer.Typer(help="Look at turns that were given up, and decide about them.", no_args_is_help=True)
app.add_typer(dead, name="dead")
bots = typer.Typer(help="Look at the policy of bots, and set it; it holds from the next step on.", no_args_is_help=True)
app.add_typer(bots, name="bots")


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("write it as 2026-11-24, 2026-11-24T18:30 or 2026-11-24T18:30+01:00") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


_UNITS: dict[str, int] = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _span(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and unit in _UNITS and 0 < int(number) * _UNITS[unit] <= _LONGEST):
        raise typer.BadParameter("write it as 24h, 90m, 30s or 7d")
    return float(int(number) * _UNITS[unit])


_LONGEST = 100 * 365 * 86400
_SPAN: dict[str, Any] = {"parser": _span, "metavar": "SPAN"}
_TIME: dict[str, Any] = {"parser": _time, "metavar": "TIME"}


def _bot(text: str) -> str:
    if text.lower() == "default":
        return "default"
    try:
        return str(UUID(text))
    except ValueError:
        raise typer.BadParameter("name a bot by its id, or write `default` for all bots") from None


Bot = Annotated[
    str, typer.Argument(parser=_bot, metavar="BOT", help="The bot's id, or `default`: all bots.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Turn = Annotated[
    int, typer.Argument(min=1, max=2**63 - 1, metavar="TURN", help="The turn's number.", show_default=False)
]
SomeTurn = Annotated[
    int | None, typer.Argument(min=1, max=2**63 - 1, metavar="TURN", help="The turn's number.", show_default=False)
]


@app.command()
def migrate(
    runtime_role: Annotated[str, typer.Option(metavar="ROLE", help="May call the bridge's functions.")] = "",
    reader_role: Annotated[
        list[str] | None, typer.Option(metavar="ROLE", help="May read the bridge's tables; can be given several times.")
    ] = None,
    *,
    plan: Annotated[bool, typer.Option("--plan", help="Only print the SQL that would be run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create schema `bridge` and its triggers, or bring them up to date."""
    from bridge_service.operate.commands import migrate as command

    run = command.plan if plan else command.run
    readers = [role for role in reader_role or () if role]
    _run(lambda settings, output: run(settings, output, runtime_role or None, readers), as_json=as_json)


@app.command()
def uninstall(*, yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False) -> None:
    """Take schema `bridge` and its triggers out of the database; the app's tables stay as they are."""
    from bridge_service.operate.commands import uninstall as command

    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask on", param_hint="--yes")
    _run(lambda settings, output: command.run(settings, output, ask=not yes))


@app.command()
def check(*, as_json: AsJson = False) -> None:
    """Check everything that the bridge needs, and say what to do about what is missing."""
    from bridge_service.operate.commands import check as command

    _run(command.run, as_json=as_json, refused=command.refused, needs=WITH_REDIS)


@app.command()
def status(
    *,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew until Ctrl-C.")] = False,
) -> None:
    """Show how many turns stand where, and whether PostgreSQL and Redis answer."""
    from bridge_service.operate.commands import status as command

    if watch and (as_json or not sys.stdout.isatty()):
        raise typer.BadParameter("it needs a terminal, and no --json", param_hint="--watch")
    _run(command.watch if watch else command.run, as_json=as_json, needs=WITH_REDIS)


@app.command()
def why(
    message_id: Annotated[UUID, typer.Argument(metavar="MESSAGE_ID", help="The app's id of a person's message.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Tell the story of one message: what happened to it, when and why; never its content, but errors as worded."""
    from bridge_service.operate.commands import why as command

    _run(lambda settings, output: command.run(settings, output, str(message_id)), as_json=as_json)


@app.command()
def verify(*, as_json: AsJson = False) -> None:
    """Account for every message to a bot; none may be lost, none answered twice."""
    from bridge_service.operate.commands import verify as command

    _run(command.run, as_json=as_json)


@app.command()
def validate(
    *, as_json: AsJson = False, yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False
) -> None:
    """Talk to a bot of its own through the running bridge, and see that every answer comes, once and in time."""
    from bridge_service.operate.commands import validate as command

    ask = not (yes or as_json) and sys.stdin.isatty()
    _run(lambda settings, output: command.run(settings, output, ask=ask), as_json=as_json)


@app.command()
def report(
    since: Annotated[float, typer.Option(help="How far back: 24h, 90m, 30s, 7d.", **_SPAN)] = "24h",  # type: ignore[assignment]
    *,
    as_json: AsJson = False,
) -> None:
    """Go through the deployment guide's final checklist, with the figures of the last hours."""
    from bridge_service.operate.commands import report as command

    _run(lambda settings, output: command.run(settings, output, since), as_json=as_json)


@dead.command("list")
def dead_list(*, as_json: AsJson = False) -> None:
    """List the dead turns."""
    from bridge_service.operate.commands import dead as command

    _run(command.list_all, as_json=as_json)


@dead.command("show")
def dead_show(turn: Turn, *, as_json: AsJson = False) -> None:
    """Show all about a dead turn but the content of its messages; its error in that one's own words."""
    from bridge_service.operate.commands import dead as command

    _run(lambda settings, output: command.show(settings, output, turn), as_json=as_json)


@dead.command("retry")
def dead_retry(
    turn: SomeTurn = None, *, every: Annotated[bool, typer.Option("--all", help="All dead turns.")] = False
) -> None:
    """Let a dead turn try again: its messages join what waits in their conversation."""
    from bridge_service.operate.commands import dead as command

    if (turn is None) != every:
        raise typer.BadParameter("name one turn, or --all", param_hint="TURN")
    _run(lambda settings, output: command.retry(settings, output, turn))


@dead.command("drop")
def dead_drop(turn: Turn) -> None:
    """Give a dead turn up: its messages stay unanswered."""
    from bridge_service.operate.commands import dead as command

    _run(lambda settings, output: command.drop(settings, output, turn))


@bots.command("list")
def bots_list(*, as_json: AsJson = False) -> None:
    """List what the environment, `default` and each bot set."""
    from bridge_service.operate.commands import bots as command

    _run(command.list_all, as_json=as_json)


@bots.command("show")
def bots_show(bot: Bot, *, as_json: AsJson = False) -> None:
    """Show each value that holds for a bot, and where it comes from."""
    from bridge_service.operate.commands import bots as command

    _run(lambda settings, output: command.show(settings, output, bot), as_json=as_json)


@bots.command("set")
def bots_set(
    bot: Bot,
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=VALUE...",
            help="Such as GROUPING_DELAY=5; `none` asks the next: default, environment, built in.",
        ),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Set values for a bot; they hold from the next step on, without a restart."""
    from bridge_service.operate.commands import bots as command

    try:
        values = command.read(texts)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="NAME=VALUE") from None
    _run(lambda settings, output: command.set_values(settings, output, bot, values), as_json=as_json)


@app.command()
def replay(
    since: Annotated[
        datetime | None,
        typer.Option(
            help="Not what is older; UTC unless it says otherwise. By default as far back as `verify`: nine tenths"
            " of RETENTION_DAYS, and also before the installation.",
            **_TIME,
        ),
    ] = None,
    until: Annotated[datetime | None, typer.Option(help="Only what is older.", **_TIME)] = None,
    match: Annotated[UUID | None, typer.Option(metavar="MATCH_ID", help="One conversation only.")] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
) -> None:
    """Capture what people wrote to bots and the bridge has missed, and have it answered.

    On a terminal, without --since, it asks before it captures anything from before the installation.
    """
    from bridge_service.operate.commands import replay as command

    if since and until and since >= until:
        raise typer.BadParameter("it must come before --until", param_hint="--since")
    _run(
        lambda settings, output: command.run(
            settings,
            output,
            since,
            until,
            None if match is None else str(match),
            dry_run=dry_run,
            ask=since is None and not yes and sys.stdin.isatty(),
        )
    )


@app.command()
def console() -> None:
    """Serve a page with the state of the bridge, probes and metrics on HOST and PORT, until told to stop."""
    from bridge_service.operate.commands import console as command

    _run(command.run, needs=WITH_REDIS)


@app.command()
def demo(
    *, ends: Annotated[bool, typer.Option("--exit", help="End after the scenes, 0 if all came out right.")] = False
) -> None:
    """Show the bridge at work on a PostgreSQL and a Redis of its own, which are gone afterwards."""
    from bridge_service.operate.commands import demo as command

    with _in_one_line(Output(as_json=False)):
        raise typer.Exit(command.run(os.environ, ends=ends))


def _run(
    command: Callable[[Settings, Output], bool],
    *,
    as_json: bool = False,
    refused: Callable[[Output, tuple[str, ...]], None] | None = None,
    needs: Collection[str] = ("database_url",),
) -> None:
    """Run a command and end the process with its exit code.

    Parameters:
      command: returns whether what was asked holds; a BridgeError says that it could not be done.
      as_json: print one object, even if that is an error.
      refused: prints that object if the configuration is wrong.
      needs: the required settings that the command uses.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever the terminal can show, no character ends a command
    output = Output(as_json=as_json)
    try:
        with _in_one_line(output):
            settings = Settings.from_environ(os.environ, needs=needs)
            output.secrets = secrets(settings)
            holds = command(settings, output)
    except ConfigurationError as error:
        for fault in error.faults:
            output.complain(fault)
        if refused:
            refused(output, error.faults)
        else:
            output.document({"error": str(error)})
        raise typer.Exit(EX_CONFIG) from None
    except BridgeError as error:
        output.complain(output.describe(error))
        output.document({"error": output.describe(error)})
        holds = False
    raise typer.Exit(0 if holds else 1)


@contextmanager
def _in_one_line(output: Output) -> Iterator[None]:
    """End the process with 1 and one line for an error that nothing expects, and with one object if that is asked for.

    A traceback would say less to the operator, and the words of an error may quote a message.
    """
    try:
        yield
    except (BridgeError, typer.Exit, typer.Abort, TyperException, BrokenPipeError):
        raise
    except Exception as error:  # noqa: BLE001 - a half restored schema makes Python stumble in many ways
        kind, place = type_of(error), place_of(error.__traceback__)
        told = f"this command cannot go on: {kind} at {place}; `python -m bridge_service check` looks for the cause"
        output.complain(told)
        output.document({"error": told})
        raise typer.Exit(1) from None
