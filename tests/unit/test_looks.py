from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bridge_service.machine.answers import Grouped
from schedulers import looks as module
from schedulers.looks import AFTER_BATCH_SECONDS, APART_SECONDS, BOUND_SECONDS, POLL_SECONDS, Looks

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
NEVER = float("inf")


def batch(*ids: int) -> list[Grouped]:
    """Return a batch of events with these ids."""
    return [Grouped(each, "message", "match", "bot", each, 1, NOW, NOW, "open") for each in ids]


@pytest.fixture
def looks() -> Looks:
    """Give looks whose first one, at everything, was made at 100 s."""
    looks = Looks()
    assert looks.begin(100.0) == 0
    return looks


def test_the_first_look_is_at_once_and_at_everything() -> None:
    """A process that starts knows nothing of what is ungrouped."""
    looks = Looks()
    assert looks.next() == NEVER
    assert looks.begin(0.0) == 0


def test_no_look_without_a_reason(looks: Looks) -> None:
    """No bell, no batch, no sweep: no look is planned or made."""
    assert looks.next() == NEVER
    assert looks.begin(1000.0) is None


def test_a_planned_look_is_made_at_its_moment_and_once(looks: Looks) -> None:
    """It is not made before, and nothing is left of it afterwards."""
    looks.plan(101.0)
    assert looks.next() == 101.0
    assert looks.begin(100.9) is None
    assert looks.begin(101.0) == 0
    assert looks.begin(101.1) is None
    assert looks.next() == NEVER


def test_many_bells_make_one_look_each_20_ms(looks: Looks) -> None:
    """A bell right after a look is heeded APART_SECONDS after that look."""
    for moment in (100.001, 100.002, 100.003):
        looks.plan(moment)
        assert looks.begin(moment) is None
    assert looks.next() == 100.0 + APART_SECONDS
    assert looks.begin(100.0 + APART_SECONDS) == 0
    assert looks.next() == NEVER


def test_a_sweep_waits_for_nothing(looks: Looks) -> None:
    """A look at everything that was asked for is made even right after another one, and keeps what is planned."""
    looks.plan(107.0)
    looks.ask()
    assert looks.begin(100.001) == 0
    assert looks.next() == 107.0


def test_C4_three_looks_follow_each_batch(looks: Looks) -> None:  # noqa: N802 - the rule's name
    """20, 100 and 500 ms after it; another batch plans them anew."""
    looks.found(100.0, batch(1))
    assert [round(looks.next() - 100.0, 6)] == [AFTER_BATCH_SECONDS[0]]
    made = []
    for tick in range(1000):
        now = 100.0 + tick / 1000
        if looks.begin(now) is not None:
            made.append(round(now - 100.0, 3))
    assert made == [pytest.approx(each, abs=0.002) for each in (0.02, 0.1, 0.5)]
    looks.found(200.0, batch(2))
    looks.found(200.01, batch(3))
    assert looks.next() == 200.01 + AFTER_BATCH_SECONDS[0]


def test_a_mute_connection_is_polled(looks: Looks) -> None:
    """While LISTEN delivers nothing a look is due POLL_SECONDS after the last one, and no longer once it does."""
    looks.polling = True
    assert looks.next() == 100.0 + POLL_SECONDS
    assert looks.begin(100.4) is None
    assert looks.begin(100.5) == 0
    assert looks.next() == 100.5 + POLL_SECONDS
    looks.polling = False
    assert looks.begin(200.0) is None


def test_the_bound_is_the_highest_event_seen_ten_seconds_ago(looks: Looks) -> None:
    """Until then there is none; it stays when nothing is seen for long."""
    for moment, highest in ((100.0, 5), (105.0, 9), (112.0, 12)):
        looks.found(moment, batch(highest - 1, highest, highest - 2))
    after = []
    for moment in (109.9, 110.0, 116.0, 121.9, 122.0, 500.0):
        looks.plan(moment)
        after.append(looks.begin(moment))
    assert after == [0, 5, 9, 9, 12, 12]


def test_a_sweep_knows_no_bound(looks: Looks) -> None:
    """It finds what committed late with a low id."""
    looks.found(100.0, batch(42))
    looks.ask()
    assert looks.begin(100.0 + BOUND_SECONDS) == 0
    looks.plan(111.0)
    assert looks.begin(111.0) == 42


def test_after_a_large_batch_the_next_look_is_at_everything(looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a call left behind may lie below the highest id that it returned, where no bounded look would find it."""
    monkeypatch.setattr(module, "LARGE_BATCH", 2)
    looks.found(100.0, batch(42))
    looks.found(100.0, batch(900, 901))
    assert looks.begin(110.0) == 0
    looks.found(110.0, batch(902))
    assert looks.begin(110.1) == 901


def test_a_look_that_is_asked_for_while_a_batch_is_counted_is_made(looks: Looks) -> None:
    """Another thread's wish gets lost at no moment."""

    class Batch(list[Grouped]):
        def __len__(self) -> int:
            looks.ask()
            return super().__len__()

    looks.found(100.0, Batch(batch(1)))
    assert looks.begin(100.001) == 0
