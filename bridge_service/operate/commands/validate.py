"""`validate`: the guide's validation on the running bridge, with its own bot and people."""

import signal
import statistics
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from bridge_service.errors import BridgeError
from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import Ledger
from bridge_service.operate.commands import validate_tact
from bridge_service.operate.commands.report import DETECTION_MILLISECONDS, PUSH_MILLISECONDS
from bridge_service.operate.commands.validate_app import NAME, Guests, clean_up, missing_rights
from bridge_service.operate.output import Output, counted, place_of
from bridge_service.scenes.judge import Judge, Progress, Result, Stuck
from bridge_service.scenes.script import Script
from bridge_service.scenes.tact import LeftOut
from bridge_service.settings import Settings

MESSAGES: Final = 10
RAPID: Final = 3
LOAD: Final = 50
PEOPLE: Final = MESSAGES + 1
"""One conversation for each of the ten messages, and a new match for the opener."""

OPENER_SECONDS: Final = 2.0

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Step = Callable[[Progress], Result]


class Interrupted(Exception):
    """Raised when the operator wants the command to end."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of a step.

    Attributes:
      faults: None if it was not tried, or was left out.
      result, detail: None if it has none; of a step that was left out, `detail` says why.
    """

    name: str
    faults: Sequence[str] | None
    result: Result | None = None
    detail: str | None = None

    @property
    def ok(self) -> bool | None:
        return None if self.faults is None else not self.faults

    @property
    def holds(self) -> bool:
        return self.detail is not None if self.faults is None else not self.faults


def run(settings: Settings, output: Output, *, ask: bool) -> bool:
    """Go through the steps, clean up, and return whether all is well."""
    with closing(Connection(settings.database_url, application="bridge validate")) as connection:
        lacking = missing_rights(connection)
        if lacking:
            remedy = "run it with a role that may insert and delete in the app's tables, as their owner may"
            for line in lacking:
                output.complain(f"{line}; {remedy}")
            output.document({"ok": False, "steps": [], "error": "; ".join(lacking)})
            return False
        Ledger(connection).assert_complete()
        question = f"Write test conversations into {place_of(settings.database_url)}, and delete them afterwards?"
        if ask and not typer.confirm(question):
            output.complain("Nothing was done.")
            return False
        guests = Guests(connection, PEOPLE)
        with _signals_noted() as stopping:
            try:
                script = Script(Judge(connection, partial(_pause, stopping)))
                outcomes = list(_go_through(_steps(script, guests, connection, stopping), guests, output))
            finally:
                trouble = clean_up(settings.database_url, guests)
            if stopping.is_set():
                output.complain("interrupted")
    if trouble:
        output.complain(
            f"not everything could be deleted again ({output.describe(trouble)}): what is left belongs to the profiles"
            f" that are called `{NAME}`"
        )
    return _tell(outcomes, output, cleaned_up=trouble is None, interrupted=stopping.is_set())


@contextmanager
def _signals_noted() -> Iterator[threading.Event]:
    """Give an event that a signal sets: an exception could come between a write and the note of it."""
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


def _pause(stopping: threading.Event, seconds: float) -> None:
    if stopping.wait(seconds):
        raise Interrupted


def _steps(
    script: Script, guests: Guests, connection: Connection, stopping: threading.Event
) -> tuple[tuple[str, int, Step], ...]:
    """Return the steps: name, how many answers are expected, and what to call."""
    ledger = Ledger(connection)

    def write(match: str | None = None) -> str:
        _pause(stopping, 0)
        return guests.match_and_write() if match is None else guests.write(match)

    def messages(progress: Progress) -> Result:
        return script.messages([write] * MESSAGES, progress)

    def grouping(progress: Progress) -> Result:
        return script.burst([partial(write, guests.matches[0])] * RAPID, progress)

    def initiation(progress: Progress) -> Result:
        match = guests.match()
        return script.opener(match, lambda _: _planned(ledger, match), progress)

    def load(progress: Progress) -> Result:
        matches = guests.matches[:MESSAGES]
        return script.messages((partial(write, matches[each % MESSAGES]) for each in range(LOAD)), progress)

    return (
        ("messages", MESSAGES, messages),
        ("grouping", RAPID, grouping),
        ("initiation", 1, initiation),
        ("load", LOAD, load),
        *validate_tact.steps(script, guests, connection, write),
    )


def _planned(ledger: Ledger, match: str) -> float | None:
    """Plan the opener of a match; return when it is due."""
    plan = ledger.plan_opener(match, OPENER_SECONDS)
    # `nothing`: an opener that was drawn and due at once is under way, which is as good.
    if plan["outcome"] not in {"planned", "nothing"}:
        raise Stuck(f"the opener of a new match could not be planned: {plan['outcome']}")
    return plan.get("due_at")


def _detail(name: str, expected: int, result: Result) -> str:
    if name in validate_tact.DETAILS:
        return validate_tact.DETAILS[name]
    if expected == 1:
        return "the bot spoke first, once"
    return f"{expected} of {expected} answered, in {counted(result.replies, 'group')}"


def _go_through(steps: Sequence[tuple[str, int, Step]], guests: Guests, output: Output) -> Iterator[_Outcome]:
    """Do one step after the other; after one without a result the others are not tried."""
    hopeless = False
    with Bars(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=output.console,
        disable=not output.console.is_terminal,
    ) as bars:
        for name, total, step in steps:
            if hopeless:
                yield _Outcome(name, None)
                continue
            bar = bars.add_task(name, total=total)
            if bars.disable:
                output.say(f"{name} ...")
            try:
                if not guests.matches:
                    guests.arrive()
                result = step(lambda answered, bar=bar: bars.update(bar, completed=answered))  # type: ignore[misc]
            except Interrupted:
                hopeless = True
                yield _Outcome(name, None)
            except LeftOut as error:
                yield _Outcome(name, None, None, f"left out: {error}")
            except (Stuck, BridgeError) as error:
                hopeless = True
                yield _Outcome(name, [str(error) if isinstance(error, Stuck) else output.describe(error)])
            else:
                yield _Outcome(name, result.faults, result, _detail(name, total, result))


def _tell(outcomes: Sequence[_Outcome], output: Output, *, cleaned_up: bool, interrupted: bool) -> bool:
    holds = cleaned_up and not interrupted and all(outcome.holds for outcome in outcomes)
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
                    "detail": outcome.detail,
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
            # A slow bridge is a warning, not a fault.
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
        return "-", outcome.name, outcome.detail or "not tried"
    if outcome.faults:
        return "❌", outcome.name, "; ".join(outcome.faults)
    return "✅", outcome.name, outcome.detail or ""


def _milliseconds(seconds: Sequence[float]) -> tuple[float, float] | None:
    """Return median and maximum."""
    if not seconds:
        return None
    # The clock is read to the microsecond, so rounding may let a push seem earlier than its time.
    times = [round(max(0.0, each) * 1000, 1) for each in seconds]
    return statistics.median(times), max(times)
