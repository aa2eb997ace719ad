"""The scenes: what is written, and what has to follow. `validate` plays them with guests, the demo with its people."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from bridge_service.scenes.judge import Judge, Look, Progress, Result, Stage, Stuck

RAPID_MARGIN_SECONDS: Final = 0.05

Write = Callable[[], str]
"""Writes one message, and returns its id."""


def _quietly(_answered: int) -> None:
    """Tell no progress."""


class Script:
    """Plays scenes one after the other, and has each judged; each may raise `Stuck` or a BridgeError."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self._followed: list[str] = []

    def messages(self, writes: Iterable[Write], progress: Progress = _quietly) -> Result:
        """Let each message be answered once."""
        return self.answered(self.write(writes), progress)

    def burst(self, writes: Iterable[Write], progress: Progress = _quietly) -> Result:
        """Let rapid messages of one conversation become one group."""
        sent = self.write(writes)
        look = self.judge.wait(sent, Stage.ANSWERED, progress)
        captured = [event["captured_at"] for event in look.events.values()]
        faults = []
        if len(look.turns) > 1 and max(captured) - min(captured) < self.judge.delay - RAPID_MARGIN_SECONDS:
            faults.append(f"{len(sent)} rapid messages became {len(look.turns)} groups")
        return _with(self.judge.judge(look, self._followed), faults)

    def second_thought(self, first: Write, second: Write) -> Result:
        """Let a message come while the bot types: it drops its draft, and one reply answers both."""
        sent = self.write([first])
        self.until_typing(sent)
        result = self.answered(sent + self.write([second]))
        faults = [f"{result.replies} replies, not one to both"] if result.replies > 1 else []
        return _with(result, faults)

    def opener(self, match: str, plan: Callable[[Look], float | None], progress: Progress = _quietly) -> Result:
        """Let the bot write first in a new match, once.

        Parameters:
          plan: returns when the opener is planned, once the match is grouped; None if that cannot be known.
        """
        self._followed.append(match)
        planned = plan(self.judge.wait([match], Stage.GROUPED))
        look = self.judge.wait([match], Stage.ANSWERED, progress)
        return self.judge.judge(look, self._followed, planned=planned)

    # Their parts, for a scene that does more between them

    def write(self, writes: Iterable[Write]) -> list[str]:
        """Write; return the messages' ids."""
        sent = []
        for write in writes:
            sent.append(write())
            self._followed.append(sent[-1])
        return sent

    def until_typing(self, sent: Sequence[str]) -> None:
        """Wait until the bot types its reply."""
        look = self.judge.wait(sent, Stage.TYPING)
        if Stage.ANSWERED in map(look.stage, sent):
            raise Stuck("the reply was there before the next message could be written")

    def answered(self, sent: Sequence[str], progress: Progress = _quietly, *, healthy: bool = True) -> Result:
        """Wait until messages are answered, and have them judged; `healthy`: False if a server was away."""
        look = self.judge.wait(sent, Stage.ANSWERED, progress)
        return self.judge.judge(look, self._followed, healthy=healthy)

    def all_together(self) -> tuple[str, ...]:
        """Judge once more all that was ever written; return the faults."""
        return self.answered(self._followed, healthy=False).faults if self._followed else ()


def _with(result: Result, faults: Iterable[str]) -> Result:
    return replace(result, faults=(*faults, *result.faults))
