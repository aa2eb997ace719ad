"""`validate`: the guide's validation on the running bridge, with a bot and people of its own."""

import signal
import statistics
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

import psycopg2.extensions
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bridge_service.errors import BridgeError
from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import Ledger
from bridge_service.operate.commands.report import DETECTION_MILLISECONDS, PUSH_MILLISECONDS
from bridge_service.operate.commands.validate_app import NAME, Guests, clean_up, missing_rights
from bridge_service.operate.commands.validate_steps import PEOPLE, Interrupted, Result, Stuck, Validation
from bridge_service.operate.output import Output
from bridge_service.settings import Settings

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of a step; `result` is None if it has none, `faults` None if it was not tried."""

    name: str
    result: Result | None
    faults: Sequence[str] | None

    @property
    def ok(self) -> bool | None:
        return None if self.faults is None else not self.faults


def run(settings: Settings, output: Output, *, ask: bool) -> bool:
    """Go through the steps, clean up, and return whether all went well."""
    with closing(Connection(settings.database_url, application="bridge validate")) as connection:
        lacking = missing_rights(connection)
        if lacking:
            remedy = "run it with a role that may insert and delete in the app's tables, as their owner may"
            for line in lacking:
                output.complain(f"{line}; {remedy}")
            output.document({"ok": False, "steps": [], "error": "; ".join(lacking)})
            return False
        Ledger(connection).assert_complete()
        if ask and not _agreed(settings):
            output.complain("Nothing was done.")
            return False
        guests = Guests(connection, PEOPLE)
        with _signals_noted() as stopping:
            try:
                validation = Validation(Ledger(connection), guests, stopping)
                outcomes = list(_go_through(validation, guests, output))
            finally:
                trouble = clean_up(settings.database_url, guests)
            if stopping.is_set():
                output.complain("interrupted")
    if trouble:
        output.complain(
            f"not everything could be deleted again ({output.describe(trouble)}): it is what hangs on the profiles that"
            f" are called `{NAME}`"
        )
    return _tell(outcomes, output, cleaned_up=trouble is None, interrupted=stopping.is_set())


def _agreed(settings: Settings) -> bool:
    parts = psycopg2.extensions.parse_dsn(settings.database_url)
    where = f"{parts.get('dbname', 'the database')} on {parts.get('host', 'this machine')}"
    return typer.confirm(f"Write test conversations into {where}, and delete them afterwards?")


@contextmanager
def _signals_noted() -> Iterator[threading.Event]:
    """Give an event that a signal sets, for nothing may be broken off between a write and the note of it."""
    stopping = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        stopping.set()

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _go_through(validation: Validation, guests: Guests, output: Output) -> Iterator[_Outcome]:
    """Do one step after the other; after one without a result the others are not tried."""
    hopeless = False
    with Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=output.console,
        disable=not output.console.is_terminal,
    ) as bars:
        for name, total, step in validation.steps():
            if hopeless:
                yield _Outcome(name, None, None)
                continue
            bar = bars.add_task(name, total=total)
            if bars.disable:
                output.say(f"{name} ...")
            try:
                if not guests.matches:
                    guests.arrive()
                result = step(lambda answered, bar=bar: bars.update(bar, completed=answered))  # type: ignore[misc]
                yield _Outcome(name, result, result.faults)
            except Interrupted:
                hopeless = True
                yield _Outcome(name, None, None)
            except (Stuck, BridgeError) as error:
                hopeless = True
                yield _Outcome(name, None, [str(error) if isinstance(error, Stuck) else output.describe(error)])


def _tell(outcomes: Sequence[_Outcome], output: Output, *, cleaned_up: bool, interrupted: bool) -> bool:
    holds = cleaned_up and not interrupted and all(outcome.ok for outcome in outcomes)
    results = [outcome.result for outcome in outcomes if outcome.result]
    measured = {
        "detection": (_milliseconds([each for result in results for each in result.detection]), DETECTION_MILLISECONDS),
        "push": (_milliseconds([each for result in results for each in result.push]), PUSH_MILLISECONDS),
    }
    output.document(
        {
            "ok": holds,
            "steps": [
                {
                    "name": outcome.name,
                    "ok": outcome.ok,
                    "detail": outcome.result.detail if outcome.result else None,
                    "faults": list(outcome.faults or ()),
                }
                for outcome in outcomes
            ],
            **{
                f"{name}_ms": None if figures is None else {"median": figures[0], "max": figures[1]}
                for name, (figures, _) in measured.items()
            },
            "cleaned_up": cleaned_up,
            "interrupted": interrupted,
        }
    )
    output.table(["", "step", "result"], map(_row, outcomes))
    for name, (figures, goal) in measured.items():
        if figures is not None:
            # A slower bridge is told so, and is no broken one.
            slow = f", slower than the guide's {goal} ms" if figures[0] > goal else ""
            output.say(
                f"{name}: median {figures[0]:.0f} ms, at most {figures[1]:.0f} ms{slow}", "yellow" if slow else ""
            )
    for outcome in outcomes:
        for fault in outcome.faults or ():
            output.complain(f"{outcome.name}: {fault}")
    return holds


def _row(outcome: _Outcome) -> tuple[str, str, str]:
    if outcome.ok is None:
        return "-", outcome.name, "not tried"
    if outcome.result is None or outcome.faults:
        return "❌", outcome.name, "; ".join(outcome.faults or ())
    return "✅", outcome.name, outcome.result.detail


def _milliseconds(seconds: Sequence[float]) -> tuple[float, float] | None:
    """Return median and maximum."""
    if not seconds:
        return None
    # The clock's readings are to the microsecond, and a push cannot come before its time but by their rounding.
    times = [round(max(0.0, each) * 1000, 1) for each in seconds]
    return statistics.median(times), max(times)
