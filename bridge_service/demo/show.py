"""The whole evening: stage, scenes, closing table, and a talk with Camille until Ctrl-C."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Final, Self

from bridge_service.demo.figures import DETECTION_SECONDS, LATENESS_SECONDS, PUSH_SECONDS, longest
from bridge_service.demo.playground import Playground
from bridge_service.demo.scenes import SCENES, Result, Scene, audit_all, perform
from bridge_service.demo.screen import Screen
from bridge_service.demo.stage import Stage

GUIDE_GROUPING_SECONDS: Final = 15
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
            if ends:
                right = close(stage, perform(scenes, stage))
            else:
                page = stack.enter_context(Playground(stage))
                right = close(stage, perform(page.tour((scene.name, scene) for scene in scenes), stage))
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


def close(stage: Stage, results: Sequence[Result]) -> bool:
    """Look at everything once more, show the closing table, and return whether all came out right."""
    screen = stage.screen
    screen.say()
    screen.table(*closing_table(results))
    seconds = stage.settings.grouping_delay
    screen.say(
        f"The longest of each. Late: after the planned push, {seconds:g} s after a group's first message"
        f" ({GUIDE_GROUPING_SECONDS} s in the guide).{_SLOW}: above the goal, on this machine today.",
        "dim",
    )
    screen.say()
    faults = audit_all(stage, stage.app.chats())
    screen.verdict("All conversations", faults, "every message answered, none twice")
    wrong = sum(bool(result.faults) for result in results)
    if wrong:
        screen.say(f"{wrong} of {len(results)} scenes went wrong.", "bold red")
    return not wrong and not faults


def closing_table(results: Sequence[Result]) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Return the columns, a row for each scene, and the rows that stand apart: all together, and the guide's goals.

    A scene in which a server was away counts in everything but the times of pushing, which are the outage's.
    """
    rows = [[*_row(result.name, [result]), "❌" if result.faults else "✅"] for result in results]
    together = [*_row("Together", results), ""]
    guide = ["The guide", "", "", ""]
    guide += [f"< {goal * 1000:g} ms" for goal in (DETECTION_SECONDS, PUSH_SECONDS)]
    guide += [f"{GUIDE_GROUPING_SECONDS} s kept", ""]
    return ["Scene", "sent", "groups", "replies", "detection", "push", "late", ""], rows, [together, guide]


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


def _row(name: str, results: Sequence[Result]) -> list[str]:
    figures = [result.figures for result in results]
    healthy = [result.figures for result in results if not result.outage]
    return [
        name,
        str(sum(result.sent for result in results)),
        str(sum(each.groups for each in figures)),
        str(sum(result.replies for result in results)),
        _milliseconds(longest(each.detection for each in figures), DETECTION_SECONDS),
        _milliseconds(longest(each.push for each in healthy), PUSH_SECONDS),
        _milliseconds(longest(each.lateness for each in healthy), LATENESS_SECONDS),
    ]


def _milliseconds(seconds: float | None, goal: float) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms{_SLOW if seconds >= goal else ''}"
