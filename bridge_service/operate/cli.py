"""The operator's command line: what there is to type, and which exit code means what.

A command is a function here, with its options and its help, and a module of the same name in commands/ that does the
work. The module is imported only when the command is called, because a library of another command may be absent.

Exit codes: 0 all is well, 1 what was asked does not hold, 2 wrong usage, 78 wrong configuration.
"""

import io
import os
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated
from uuid import UUID

import typer
from typer.exceptions import TyperException

from bridge_service.errors import EX_CONFIG, BridgeError, ConfigurationError, type_of
from bridge_service.operate.arguments import SPAN, TIME, AsJson, Bot, BotId, Match, SomeTurn, Turn, Until
from bridge_service.operate.output import Output
from bridge_service.settings import REQUIRED as WITH_REDIS
from bridge_service.settings import Settings, secrets
from bridge_service.telemetry.logs import place_of

app = typer.Typer(
    help="Operate the bridge. Exit codes: 0 all is well, 1 it does not hold, 2 wrong usage, 78 wrong configuration.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # it would show local variables, and so the passwords of URLs
    context_settings={"help_option_names": ["-h", "--help"]},
)
dead = typer.Typer(help="List the turns that were given up, and decide about each.", no_args_is_help=True)
app.add_typer(dead, name="dead")
bots = typer.Typer(help="Look at the policy of bots, and set it; it holds from the next step on.", no_args_is_help=True)
app.add_typer(bots, name="bots")
conversations = typer.Typer(
    help="Look at one conversation, and let a bot that left it answer again.", no_args_is_help=True
)
app.add_typer(conversations, name="conversations")


@app.command()
def migrate(
    runtime_role: Annotated[str, typer.Option(metavar="ROLE", help="This role may call the bridge's functions.")] = "",
    reader_role: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE", help="This role may read the bridge's tables; repeat it for several."),
    ] = None,
    app_role: Annotated[
        str,
        typer.Option(metavar="ROLE", help="The app's role: it may call bridge.pause, bridge.resume and bridge.state."),
    ] = "",
    *,
    plan: Annotated[bool, typer.Option("--plan", help="Print the SQL, and run nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create schema `bridge` and its triggers, or bring them up to date."""
    from bridge_service.operate.commands import migrate as command

    run = command.plan if plan else command.run
    readers = [role for role in reader_role or () if role]
    _run(
        lambda settings, output: run(settings, output, runtime_role or None, readers, app_role or None), as_json=as_json
    )


@app.command()
def uninstall(*, yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False) -> None:
    """Remove schema `bridge` and its triggers from the database; the app's tables stay as they are."""
    from bridge_service.operate.commands import uninstall as command

    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask on", param_hint="--yes")
    _run(lambda settings, output: command.run(settings, output, ask=not yes))


@app.command()
def check(*, as_json: AsJson = False) -> None:
    """Check everything that the bridge needs, and say what to do about each fault."""
    from bridge_service.operate.commands import check as command

    _run(command.run, as_json=as_json, refused=command.refused, needs=WITH_REDIS)


@app.command()
def status(
    *,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every 2 seconds until Ctrl-C.")] = False,
) -> None:
    """Count the turns in each state, and say whether PostgreSQL and Redis answer."""
    from bridge_service.operate.commands import status as command

    if watch and (as_json or not sys.stdout.isatty()):
        raise typer.BadParameter("it needs a terminal, and no --json", param_hint="--watch")
    _run(command.watch if watch else command.run, as_json=as_json, needs=WITH_REDIS)


@app.command()
def why(
    message_id: Annotated[
        UUID, typer.Argument(metavar="MESSAGE_ID", help="The id of a person's message in the app's table.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Tell the story of one message: what happened to it, when and why. Its content is never shown; errors are."""
    from bridge_service.operate.commands import why as command

    _run(lambda settings, output: command.run(settings, output, str(message_id)), as_json=as_json)


@app.command()
def verify(*, as_json: AsJson = False) -> None:
    """Account for every message to a bot: none may be lost, none answered twice."""
    from bridge_service.operate.commands import verify as command

    _run(command.run, as_json=as_json)


@app.command()
def validate(
    *, as_json: AsJson = False, yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False
) -> None:
    """Write to a test bot through the running bridge, and check that every answer comes, once and in time."""
    from bridge_service.operate.commands import validate as command

    ask = not (yes or as_json) and sys.stdin.isatty()
    _run(lambda settings, output: command.run(settings, output, ask=ask), as_json=as_json)


@app.command()
def report(
    since: Annotated[float, typer.Option(help="How far back: 24h, 90m, 30s, 7d.", **SPAN)] = "24h",  # type: ignore[assignment]
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
    """Show everything about a dead turn except the content of its messages. Its error is shown as it was raised."""
    from bridge_service.operate.commands import dead as command

    _run(lambda settings, output: command.show(settings, output, turn), as_json=as_json)


@dead.command("retry")
def dead_retry(
    turn: SomeTurn = None, *, every: Annotated[bool, typer.Option("--all", help="Retry all dead turns.")] = False
) -> None:
    """Let a dead turn try again: its messages join the waiting turn of their conversation."""
    from bridge_service.operate.commands import dead as command

    if (turn is None) != every:
        raise typer.BadParameter("name one turn, or --all", param_hint="TURN")
    _run(lambda settings, output: command.retry(settings, output, turn))


@dead.command("drop")
def dead_drop(turn: Turn) -> None:
    """Give up a dead turn: its messages stay unanswered."""
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
    from bridge_service.settings import overrides

    try:
        values = overrides.read(texts)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="NAME=VALUE") from None
    _run(lambda settings, output: command.set_values(settings, output, bot, values), as_json=as_json)


@bots.command("pause")
def bots_pause(bot: BotId, until: Until = None, *, as_json: AsJson = False) -> None:
    """Let a bot be silent; what is written meanwhile is answered at the end."""
    from bridge_service.operate.commands import bots as command

    _run(lambda settings, output: command.pause(settings, output, str(bot), until), as_json=as_json)


@bots.command("resume")
def bots_resume(bot: BotId, *, as_json: AsJson = False) -> None:
    """Take a bot's pause back."""
    from bridge_service.operate.commands import bots as command

    _run(lambda settings, output: command.resume(settings, output, str(bot)), as_json=as_json)


@conversations.command("pause")
def conversations_pause(match: Match, until: Until = None, *, as_json: AsJson = False) -> None:
    """Let the bot be silent in a conversation; what is written meanwhile is answered at the end."""
    from bridge_service.operate.commands import conversations as command

    _run(lambda settings, output: command.pause(settings, output, str(match), until), as_json=as_json)


@conversations.command("show")
def conversations_show(match: Match, *, as_json: AsJson = False) -> None:
    """Show where a conversation stands: left, off, paused, idle, or what its bot owes."""
    from bridge_service.operate.commands import conversations as command

    _run(lambda settings, output: command.show(settings, output, str(match)), as_json=as_json)


@conversations.command("resume")
def conversations_resume(match: Match, *, as_json: AsJson = False) -> None:
    """Let the bot answer where it left or is paused; only what was written in a pause is answered."""
    from bridge_service.operate.commands import conversations as command

    _run(lambda settings, output: command.resume(settings, output, str(match)), as_json=as_json)


@app.command()
def replay(
    since: Annotated[
        datetime | None,
        typer.Option(
            help="Only what is newer; UTC unless it has an offset. By default as far back as `verify` looks, nine"
            " tenths of RETENTION_DAYS, from before the installation too.",
            **TIME,
        ),
    ] = None,
    until: Annotated[datetime | None, typer.Option(help="Only what is older.", **TIME)] = None,
    match: Annotated[UUID | None, typer.Option(metavar="MATCH_ID", help="One conversation only.")] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and capture nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
) -> None:
    """Capture the messages to bots that the bridge missed, and have them answered.

    Without --since, on a terminal, it asks before it captures messages from before the installation.
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
    """Serve a page with the state of the bridge, probes and metrics on HOST and PORT, until SIGTERM or Ctrl-C."""
    from bridge_service.operate.commands import console as command

    _run(command.run, needs=WITH_REDIS)


@app.command()
def demo(
    *,
    ends: Annotated[
        bool, typer.Option("--exit", help="End after the scenes; exit code 0 if all of them passed.")
    ] = False,
) -> None:
    """Show the bridge at work on servers of its own, with a page on PORT to write, watch and break things."""
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
      command: returns whether what was asked holds; raises a BridgeError if it could not be done.
      as_json: print one object, also for an error.
      refused: prints that object if the configuration is wrong.
      needs: the required settings that the command uses.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a character that the terminal cannot show ends no command
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
    """End the process with 1 and one line (with --json, one object) for an error that no command expects.

    An operator cannot act on a traceback, and the words of an error may quote a message.
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
