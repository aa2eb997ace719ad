"""The two loops that deliver: sets of what is due, and one by one what failed in a set or held one up."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from bridge_service.errors import DatabaseBusy, DatabaseRefused, DatabaseUnavailable, SchemaMissing
from bridge_service.machine.answers import Deliveries, Outcome
from bridge_service.telemetry.signals import PostgresLost, PostgresRefused, ReplyDelivered, SchemaAbsent, TurnFailed
from schedulers import alone as alone_module
from schedulers import deliverer as module
from schedulers.deliverer import Deliverer
from tests.support.app import App
from tests.support.policy import set_grouping
from tests.support.recorder import Recorder
from tests.support.store import store_on
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bridge_service.machine.steps import Store
    from schedulers.alone import Alone
    from tests.support.roles import Urls

MATCH = str(uuid4())
NOTHING = Deliveries({}, None)


def _answered(next_turn: int | None = None) -> Outcome:
    details = {"match_id": MATCH, "message_id": "m", "kind": "reply", "characters": 1, "covered": 1, "late": 0.0}
    return Outcome("answered", {**details, "next_turn": next_turn})


def _outcome(name: str, **details: object) -> Outcome:
    return Outcome(name, {"match_id": MATCH, **details})


class Parts:
    """Stands in for the store: what becomes of a set, and of a turn alone, is up to the test."""

    def __init__(self) -> None:
        self.sets: list[Deliveries | Exception] = []
        self.due: list[list[int] | Exception] = []
        self.looks: queue.Queue[tuple[float, list[int]]] = queue.Queue()
        self.outcomes: Mapping[int, Iterator[Outcome | Exception]] = {}
        self.tries: queue.Queue[int] = queue.Queue()

    def deliver_due(self, limit: int, alone: Sequence[int]) -> Deliveries:
        """Deliver a set."""
        assert limit == module.BATCH
        self.looks.put((time.monotonic(), list(alone)))
        done: Deliveries = _play(self.sets.pop(0) if self.sets else NOTHING)
        return done

    def due_deliveries(self, limit: int, alone: Sequence[int]) -> list[int]:
        """Say what would have been in it."""
        del limit, alone
        due: list[int] = _play(self.due.pop(0))
        return due

    def deliver(self, turn_id: int) -> Outcome:
        """Deliver one."""
        self.tries.put(turn_id)
        outcome: Outcome = _play(next(self.outcomes[turn_id]))
        return outcome

    def unreadable(self, turn_id: int, step: str, error: str) -> Outcome:
        """Count an attempt."""
        assert step == "deliver"
        return _outcome("failed", error=error, attempts=turn_id)


def _play(what: Any) -> Any:  # noqa: ANN401
    if isinstance(what, Exception):
        raise what
    return what


class Desk:
    """A deliverer and what it did."""

    def __init__(self, store: Any = None) -> None:  # noqa: ANN401 - a store, or what stands in for it
        self.parts = Parts()
        self.told = Recorder()
        self.pushable: queue.Queue[None] = queue.Queue()
        parts: Any = store or self.parts
        self.deliverer = Deliverer(parts, on_pushable=lambda: self.pushable.put(None), emit=self.told)
        self.alone = self.deliverer.alone

    def wait_for_look(self) -> float:
        """Return when the next set was asked for."""
        return self.parts.looks.get(timeout=5)[0]

    def no_look_for(self, seconds: float) -> None:
        """Fail if a set is asked for within so many seconds."""
        with pytest.raises(queue.Empty):
            self.parts.looks.get(timeout=seconds)

    def stop(self) -> None:
        """Stop both loops."""
        for loop in (self.deliverer, self.alone):
            loop.stop(5)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Give a deliverer whose sweeps do not come during a test."""
    monkeypatch.setattr(module, "SWEEP_SECONDS", 3600.0)
    desk = Desk()
    yield desk
    desk.stop()


# When it looks


def test_it_looks_at_the_start_at_a_bell_and_when_the_next_reply_is_due(desk: Desk) -> None:
    """A reply that is due in 0.3 s is delivered then, and not at the next sweep; in between there is no look."""
    desk.parts.sets = [Deliveries({}, 0.3), NOTHING]
    desk.deliverer.start()
    began = desk.wait_for_look()
    assert desk.wait_for_look() - began > 0.29
    desk.no_look_for(0.1)
    desk.deliverer.wake()
    desk.wait_for_look()


def test_the_sweep_comes_by_itself(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bell that was lost costs the time until the sweep."""
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.05)
    desk.deliverer.start()
    for _ in range(3):
        desk.wait_for_look()


def test_a_set_is_followed_by_the_next_as_long_as_something_is_due(desk: Desk) -> None:
    """A backlog is delivered without a bell; turns that another scheduler holds are looked at again."""
    desk.parts.sets = [Deliveries({1: _answered()}, -1.0), Deliveries({}, -0.5), Deliveries({2: _answered()}, None)]
    desk.deliverer.start()
    assert [event.turn_id for event in desk.told.wait_for(ReplyDelivered, 2)] == [1, 2]


# What it tells


def test_an_outcome_is_told_as_a_worker_told_it_and_wakes_the_planner(desk: Desk) -> None:
    """A waiting turn that was pushed may go on at once; a reply without one asks for no push."""
    desk.parts.sets = [Deliveries({1: _answered()}, None)]
    desk.deliverer._deliver()
    assert desk.told.names() == ["reply_delivered"]
    assert desk.pushable.empty()
    desk.parts.sets = [Deliveries({2: _answered(next_turn=3), 4: _outcome("nothing", state="composing")}, None)]
    desk.deliverer._deliver()
    assert desk.pushable.qsize() == 2


def test_what_failed_or_was_late_is_delivered_alone_from_then_on(desk: Desk) -> None:
    """What a set answered, and what ended otherwise, is forgotten."""
    outcomes = {
        1: _outcome("failed", attempts=1, error="delivery"),
        2: _outcome("later", error="53100"),
        3: _outcome("alone"),
        4: _outcome("nothing", state="typing"),
        5: _outcome("nothing", state="composing"),
        6: _answered(),
        7: _outcome("cancelled", kind="reply", reason="gone"),
    }
    desk.parts.sets = [Deliveries(outcomes, None)]
    desk.deliverer._deliver()
    assert desk.alone.turns() == [1, 2, 3, 4]
    desk.deliverer._deliver()
    assert [alone for _, alone in desk.parts.looks.queue] == [[], [1, 2, 3, 4]]


def test_a_set_that_raised_is_delivered_turn_by_turn(desk: Desk) -> None:
    """Nothing tells which turn spoiled it; nothing is told of it either, since each turn tells its own trouble."""
    desk.parts.sets = [DatabaseUnavailable("canceling statement due to statement timeout")]
    desk.parts.due = [[7, 8]]
    assert desk.deliverer._deliver().due_in == 0
    assert desk.alone.turns() == [7, 8]
    assert desk.told.signals == []


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (DatabaseUnavailable("gone"), PostgresLost("gone")),
        (SchemaMissing("no schema"), SchemaAbsent()),
        (DatabaseRefused("no right"), PostgresRefused("no right")),
        (DatabaseBusy("locked"), None),
    ],
)
def test_a_look_that_failed_is_told_of_and_made_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, error: Exception, event: object
) -> None:
    """While PostgreSQL is away both calls raise; a lock is no trouble."""
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    desk.parts.sets = [error]
    desk.parts.due = [error]
    desk.deliverer.start()
    for _ in range(2):
        desk.wait_for_look()
    assert desk.told.signals == ([] if event is None else [event])
    assert desk.alone.turns() == []


def test_a_stop_ends_both_waits_at_once(desk: Desk) -> None:
    """Neither the wait for the next reply nor the wait for a turn to be tried again holds the process up."""
    for loop in (desk.deliverer, desk.alone):
        loop.start()
    desk.wait_for_look()
    desk.stop()
    assert not {"deliverer", "alone"} & {thread.name for thread in threading.enumerate()}


# Alone


@pytest.fixture
def alone(desk: Desk) -> Alone:
    """Give the loop that delivers alone, to be turned by hand."""
    return desk.alone


def test_a_turn_that_was_never_tried_alone_goes_before_those_that_are_held(desk: Desk, alone: Alone) -> None:
    """Ten conversations that the app holds delay a new one by one call."""
    held = list(range(1, 11))
    desk.parts.outcomes = {turn: iter([_outcome("later")]) for turn in held} | {11: iter([_answered()])}
    alone.add(held)
    for _ in held:
        alone.turn()
    alone.add([11])
    alone.turn()
    assert [desk.parts.tries.get_nowait() for _ in range(11)] == [*held, 11]
    assert alone.turns() == held


def test_a_turn_that_is_held_is_tried_again_later_each_time(
    desk: Desk, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 1, 2, 4 and then each 5 s; once it is delivered it is forgotten."""
    now = [100.0]
    monkeypatch.setattr("schedulers.alone.time.monotonic", lambda: now[0])
    monkeypatch.setattr(alone, "_changed", _NoWait())
    desk.parts.outcomes = {
        1: iter([_outcome("later"), DatabaseBusy("held"), _outcome("later"), _outcome("later"), _answered()])
    }
    alone.add([1])
    for seconds in (1, 2, 4, 5):
        alone.turn()
        tried = desk.parts.tries.qsize()
        now[0] += seconds - 0.1
        alone.turn()
        assert desk.parts.tries.qsize() == tried
        now[0] += 0.2
    alone.turn()
    assert alone.turns() == []
    assert desk.told.names() == ["reply_delivered"]


class _NoWait(threading.Condition):  # type: ignore[misc, unused-ignore]
    def wait(self, timeout: float | None = None) -> bool:
        """Return at once."""
        del timeout
        return False


def test_what_postgresql_cannot_read_is_an_attempt(desk: Desk, alone: Alone) -> None:
    """Nothing else would ever end the turn."""
    desk.parts.outcomes = {5: iter([DatabaseRefused("in a function", words="no such emoji")])}
    alone.add([5])
    alone.turn()
    assert desk.told.signals == [TurnFailed(5, MATCH, "DatabaseRefused: no such emoji", 5)]
    assert alone.turns() == [5]


def test_trouble_with_postgresql_is_told_and_loses_no_turn(
    desk: Desk, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn is tried again."""
    monkeypatch.setattr(alone_module, "RETRY_SECONDS", 0.0)
    desk.parts.outcomes = {5: iter([DatabaseUnavailable("gone"), SchemaMissing("no schema"), _answered()])}
    alone.add([5])
    for _ in range(3):
        alone.turn()
    assert desk.told.names() == ["postgres_lost", "schema_absent", "reply_delivered"]
    assert alone.turns() == []


def test_no_more_than_a_thousand_turns_are_remembered(alone: Alone) -> None:
    """The oldest is forgotten: a set takes it again."""
    alone.add(range(alone_module.MOST + 2))
    assert alone.turns() == list(range(2, alone_module.MOST + 2))


# On a real database


def _typing(app: App, store: Store, pause: float) -> tuple[str, int]:
    """Give a conversation whose reply is due in `pause` seconds."""
    match = app.old_match()
    app.write(match, "salut")
    [event] = store.group()
    [push] = [push for push in store.push_due(10) if push.turn_id == event.turn_id]
    token = uuid4()
    assert store.claim(push.turn_id, token).name == "claimed"
    assert store.finish(push.turn_id, token, "coucou", pause=pause).name == "typing"
    return match, push.turn_id


def test_replies_are_delivered_in_their_time_without_any_worker(bridge_database: Urls) -> None:
    """However many calls are under way, or hang, in the workers: a reply whose time has come waits for none of them."""
    set_grouping(bridge_database, 0)
    with closing(App(bridge_database)) as app, store_on(bridge_database) as store:
        desk = Desk(store)
        matches = [_typing(app, store, 0.3)[0] for _ in range(20)]
        desk.deliverer.start()
        try:
            told = desk.told.wait_for(ReplyDelivered, 20)
        finally:
            desk.stop()
        assert {event.match_id for event in told} == set(matches)
        assert all(event.lateness_seconds >= 0 for event in told)
        assert all(app.said(match) == ["coucou"] for match in matches)


def test_a_conversation_that_the_app_holds_delays_no_other(bridge_database: Urls) -> None:
    """All other replies are delivered while a transaction of the app's stays open, and this one once it ends."""
    set_grouping(bridge_database, 0)
    with (
        closing(App(bridge_database)) as app,
        store_on(bridge_database) as store,
        closing(App(bridge_database)) as holder,
    ):
        desk = Desk(store)
        replies = [_typing(app, store, 0.001) for _ in range(20)]
        held, turn = replies.pop(10)
        holder.rows("BEGIN")
        holder.rows("SELECT FROM matches WHERE id = %s FOR UPDATE", held)
        for loop in (desk.deliverer, desk.alone):
            loop.start()
        try:
            assert turn not in {event.turn_id for event in desk.told.wait_for(ReplyDelivered, 19)}
            eventually(lambda: desk.alone.turns() == [turn])
            holder.rows("ROLLBACK")
            desk.told.wait_for(ReplyDelivered, 20)
        finally:
            desk.stop()
        assert app.said(held) == ["coucou"]
