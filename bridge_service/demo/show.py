"""The demo from start to end: stage, scenes, closing table, and a talk with Camille until Ctrl-C."""

import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Final, Self

from bridge_service.demo.playground import Playground
from bridge_service.demo.scenes import SCENES, Outcome, Scene, perform
from bridge_service.demo.screen import Screen
from bridge_service.demo.stage import Stage
from bridge_service.scenes.judge import Judge, Stuck
from bridge_service.scenes.script import Script

DETECTION_SECONDS: Final = 0.5
PUSH_SECONDS: Final = 0.05
GUIDE_GROUPING_SECONDS: Final = 15
"""The guide's goals."""

_LOOK_SECONDS: Final = 1.0
_SLOW: Final = " ▲"


class Stopped(BaseException):
    """Raised in the main thread by the first signal that asks for the end; no `except Exception` may swallow it."""


class Signals:
    """SIGINT, SIGTERM and SIGHUP as one exception, and never in the middle of setting up or taking down."""

    _NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.received: int | None = None
        self._held = False

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in self._NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hold(self) -> None:
        """Only remember signals from now on."""
        self._held = True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Only remember signals in this block, and raise `Stopped` after it if there was one."""
        self.hold()
        yield
        self._held = False
        if self.received is not None:
            raise Stopped

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        first, self.received = self.received is None, self.received or number
        if first and not self._held:
            raise Stopped


def run(environ: Mapping[str, str], *, ends: bool, scenes: Sequence[Scene] = SCENES) -> int:
    """Show the bridge at work.

    Parameters:
      environ: delays and responder of the demo, where they are set.
      ends: end after the scenes instead of waiting for a signal.

    Returns:
      The exit code: 0 if every scene came out right, 1 if not, 128 + N if signal N came before that was known.

    Raises:
      ConfigurationError: a variable is wrong.
      BridgeError: a server is missing or fails, or the processes end.
    """
    screen = Screen()
    right: bool | None = None
    with Signals() as signals, ExitStack() as stack:
        try:
            with signals.held():
                stage = stack.enter_context(Stage(environ, screen))
                stage.open()
            stage.wait_until_ready()
            script = Script(Judge(stage.connection, stage.pause))
            if ends:
                right = close(stage, script, perform(scenes, stage, script))
            else:
                page = stack.enter_context(Playground(stage))
                tour = page.tour((scene.name, scene) for scene in scenes)
                right = close(stage, script, perform(tour, stage, script))
                page.open()
                talk(stage)
        except Stopped:
            screen.say()
        finally:
            signals.hold()
        screen.say("Stopping everything ...", "dim")
    if right is None:
        return 128 + (signals.received or 0)
    return 0 if right else 1


def close(stage: Stage, script: Script, outcomes: Sequence[Outcome]) -> bool:
    """Judge everything once more, show the closing table, and return whether all came out right."""
    screen = stage.screen
    screen.say()
    screen.table(*closing_table(outcomes))
    screen.say(
        f"The longest of each. Push: after the planned time, {stage.settings.grouping_delay:g} s after a group's first"
        f" message ({GUIDE_GROUPING_SECONDS} s in the guide).{_SLOW}: above the goal, on this machine today.",
        "dim",
    )
    screen.say()
    try:
        faults = script.all_together()
    except Stuck as error:
        faults = (str(error),)
    screen.verdict("All conversations", faults, "every message answered, none twice")
    wrong = sum(bool(outcome.faults) for outcome in outcomes)
    if wrong:
        screen.say(f"{wrong} of {len(outcomes)} scenes went wrong.", "bold red")
    return not wrong and not faults


def closing_table(outcomes: Sequence[Outcome]) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Return the columns, a row for each scene, and the rows that stand apart: all together, and the guide's goals."""
    rows = [[*_row(outcome.name, [outcome]), "❌" if outcome.faults else "✅"] for outcome in outcomes]
    together = [*_row("Together", outcomes), ""]
    guide = ["The guide", "", "", "", *(f"< {goal * 1000:g} ms" for goal in (DETECTION_SECONDS, PUSH_SECONDS)), ""]
    return ["Scene", "sent", "groups", "replies", "detection", "push", ""], rows, [together, guide]


def talk(stage: Stage) -> None:
    """Stay until Ctrl-C; on a terminal, let one write to Camille."""
    screen = stage.screen
    screen.say()
    if not screen.interactive:
        screen.say("Everything stays up until Ctrl-C.", "bold")
        stage.app.show_only(None)
        while True:
            stage.pause(_LOOK_SECONDS)
    chat = stage.app.chat("Inès", "Camille")
    screen.say(f"Everything stays up until Ctrl-C. You are {chat.person}: write to {chat.bot}.", "bold")
    stage.app.show_only(chat)
    while True:
        try:
            text = screen.ask(f"{chat.person} ▸ ")
        except EOFError:
            return
        stage.check()
        if text.strip():
            stage.app.write(chat, text, show=False)


def _row(name: str, outcomes: Sequence[Outcome]) -> list[str]:
    results = [outcome.result for outcome in outcomes if outcome.result]
    return [
        name,
        str(sum(outcome.sent for outcome in outcomes)),
        str(sum(outcome.groups for outcome in outcomes)),
        str(sum(result.replies for result in results)),
        _milliseconds((each for result in results for each in result.detection), DETECTION_SECONDS),
        _milliseconds((each for result in results for each in result.push), PUSH_SECONDS),
    ]


def _milliseconds(seconds: Iterable[float], goal: float) -> str:
    longest = max(seconds, default=None)
    if longest is None:
        return "-"
    return f"{max(0.0, longest) * 1000:.0f} ms{_SLOW if longest >= goal else ''}"
