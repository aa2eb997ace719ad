from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import pytest

from bridge_service.errors import DatabaseBusy, DatabaseRefused, DatabaseUnavailable, RightMissing, SequenceBehind
from bridge_service.machine.answers import Grouped
from bridge_service.telemetry.signals import NotificationRejected, PostgresRefused
from schedulers import grouper as module
from schedulers.foreign import ForeignCapture
from schedulers.grouper import Grouper, Looked
from schedulers.notifications import Notification
from tests.support.recorder import Recorder

GROUPED: Final = Grouped(1, "message", "other", "bot", 7, 1, datetime.now(UTC), None, "open")


class Stub:
    """Stands in for the store: each call gives the next answer, or raises it."""

    def __init__(self, *answers: Any) -> None:  # noqa: ANN401
        self.answers = list(answers)
        self.captured: list[str | None] = []
        self.aside: list[str] = []

    def _next(self) -> Any:  # noqa: ANN401
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def group(self, *, after: int = 0, only: str | None = None) -> Any:  # noqa: ANN401
        """Group."""
        assert only is None or after == 0
        return self._next()

    def ungrouped_matches(self, limit: int) -> list[str]:
        """Name two conversations."""
        assert limit == module.BAD_BATCH
        return ["one", "other"]

    def set_aside(self, match_id: str, error: str) -> int:
        """Note what is set aside."""
        assert error
        self.aside.append(match_id)
        return 1

    def capture_notified(self, match_id: str, message_id: str | None) -> Any:  # noqa: ANN401
        """Capture."""
        assert match_id == "match"
        answer = self._next()
        self.captured.append(message_id)
        return answer


def on(stub: Any) -> tuple[Grouper, Recorder]:  # noqa: ANN401 - what stands in for the store
    """Return a grouper, and what it tells."""
    told = Recorder()
    return Grouper(stub, told), told


def test_a_pass_waits_for_few_held_conversations_and_for_each_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are held: the others do not wait for all of them, and none of them is forgotten."""
    monkeypatch.setattr(module, "BUSY_SECONDS", 60.0)
    held = [f"held {number}" for number in range(7)]
    others = ["other 1", "other 2"]
    tried: list[str] = []
    beats: list[None] = []

    class Held(Stub):
        def group(self, *, after: int = 0, only: str | None = None) -> Any:  # noqa: ANN401
            del after
            tried.append(only or "all")
            if only not in others:
                raise DatabaseBusy("locked")
            return [GROUPED]

        def ungrouped_matches(self, limit: int) -> list[str]:
            assert limit >= module.BAD_BATCH
            return [match for match in held + others if match not in tried or match in held]

    grouper, _ = on(Held())

    def look() -> list[str]:
        tried_before = len(tried)
        looked = grouper.look(0, lambda: beats.append(None))
        assert looked.again_at is not None or not held, "it does not look again"
        return tried[tried_before:]

    assert [look() for _ in range(module.BUSY_BATCHES)] == [["all"]] * module.BUSY_BATCHES
    assert look() == held[:3]
    assert look() == held[3:6]
    assert look() == [held[6], *others]
    assert look() == []
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.0)
    assert [look() for _ in range(3)] == [held[:3], held[3:6], [held[6], *held[:2]]]
    assert len(beats) == 7 + len(others) + 9
    held.clear()
    assert look() == []
    assert look() == ["all"]


def test_a_lock_is_no_reason_to_set_aside() -> None:
    """A conversation that is locked is left to the next look, and the others are grouped."""
    stub = Stub(DatabaseRefused("bad batch"), DatabaseBusy("locked"), [GROUPED])
    grouper, _ = on(stub)
    looked = grouper.look(0)
    assert (looked.events, looked.complete) == ([GROUPED], True)
    assert looked.again_at is not None
    assert stub.aside == []


def test_a_batch_that_met_a_lock_is_looked_at_again_in_full() -> None:
    """A look says whether it saw all that it was asked for, and when to look again."""
    grouper, told = on(Stub(DatabaseBusy("locked"), [GROUPED]))
    looked = grouper.look(0)
    assert (looked.events, looked.complete) == ([], False)
    assert looked.again_at is not None
    assert grouper.look(0) == Looked([GROUPED])
    assert told.signals == []


@pytest.mark.parametrize("answers", [(RightMissing("no right"),), (DatabaseRefused("bad"), RightMissing("no right"))])
def test_a_missing_right_is_no_reason_to_set_aside(answers: tuple[Exception, ...]) -> None:
    """No event is at fault: the error rises, and every event stays for the time when it is mended."""
    stub = Stub(*answers)
    grouper, _ = on(stub)
    with pytest.raises(RightMissing):
        grouper.look(0)
    assert stub.aside == []


@pytest.mark.parametrize("first", [[], [DatabaseRefused("bad batch")]])
def test_a_sequence_that_stands_behind_is_said_once(first: list[Exception]) -> None:
    """No event is set aside; each is tried again in a second, and it is told anew only after it went well between."""
    behind = SequenceBehind("the sequence of bridge.turns stands behind")
    stub = Stub(*first, behind, behind, [GROUPED], behind)
    grouper, told = on(stub)
    said = []
    complete = []
    for _ in range(4):
        complete.append(grouper.look(0).complete)
        said.append(len(told.of(PostgresRefused)))
    assert said == [1, 1, 1, 2]
    assert complete == [False, False, True, False]
    assert stub.aside == []


@pytest.mark.parametrize("error", [DatabaseUnavailable("gone"), DatabaseBusy("locked"), RightMissing("EXECUTE")])
def test_a_notification_that_could_not_be_captured_is_kept(error: Exception) -> None:
    """No other source tells of it: it is captured, in its order, as soon as PostgreSQL takes it."""
    stub: Any = Stub(1, error, error, 2, 3)
    told = Recorder()
    foreign = ForeignCapture(stub, told)
    for message in ("a", "b", "c"):
        foreign.add(Notification("bot_events", "match", message, {}))
    for _ in range(2):
        with pytest.raises(type(error)):
            foreign.capture(lambda: None)
    foreign.capture(lambda: None)
    assert stub.captured == ["a", "b", "c"]
    assert told.of(NotificationRejected) == []
