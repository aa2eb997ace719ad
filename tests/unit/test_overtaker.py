from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from bridge_service.errors import DatabaseBusy, DatabaseUnavailable
from bridge_service.machine.answers import Grouped, Overtaken
from bridge_service.telemetry.signals import TurnSuperseded
from schedulers.overtaker import Overtaker
from tests.support.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Sequence


class Stub:
    """Stands in for the store: each call gives the next answer, or raises it."""

    def __init__(self, *answers: list[Overtaken] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[Sequence[str] | None] = []

    def overtake(self, match_ids: Sequence[str] | None = None) -> list[Overtaken]:
        """Overtake."""
        self.asked.append(match_ids)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def on(*answers: list[Overtaken] | Exception) -> tuple[Overtaker, Any, Recorder]:
    """Return an overtaker of a batch with messages in two conversations with an active turn and in one without."""
    stub: Any = Stub(*answers)
    told = Recorder()
    overtaker = Overtaker(stub, told)
    now = datetime.now(UTC)
    overtaker.add(
        Grouped(number, "message", match, "bot", number, 1, now, now, "open", match != "lone")
        for number, match in enumerate(("one", "lone", "other", "one"), 1)
    )
    return overtaker, stub, told


def test_only_conversations_with_an_active_turn_are_asked_about_and_once() -> None:
    """What was overtaken is told, and a look without such a batch makes no call."""
    overtaker, stub, told = on([Overtaken(7, "one", superseded=True, merges=2)])
    overtaker.overtake(everywhere=False)
    overtaker.overtake(everywhere=False)
    assert stub.asked == [["one", "other"]]
    assert told.signals == [TurnSuperseded(7, "one", 2)]


@pytest.mark.parametrize("first", [[Overtaken(7, "one", superseded=False, merges=0)], DatabaseBusy("locked")])
def test_what_was_locked_is_asked_about_at_the_next_look(first: list[Overtaken] | Exception) -> None:
    """Nothing is told of it before."""
    overtaker, stub, told = on(first, [])
    overtaker.overtake(everywhere=False)
    assert told.signals == []
    overtaker.overtake(everywhere=False)
    assert "one" in stub.asked[1]


def test_a_sweep_asks_about_every_conversation() -> None:
    """A process that died may have forgotten what it grouped."""
    overtaker, stub, _ = on([])
    overtaker.overtake(everywhere=True)
    assert stub.asked == [None]


def test_an_outage_is_not_repeated_at_each_look() -> None:
    """The sweep comes back to what the call was to do."""
    overtaker, stub, _ = on(DatabaseUnavailable("gone"))
    with pytest.raises(DatabaseUnavailable):
        overtaker.overtake(everywhere=False)
    overtaker.overtake(everywhere=False)
    assert len(stub.asked) == 1
