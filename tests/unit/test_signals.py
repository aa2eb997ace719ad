import itertools
import logging
import re
from collections import Counter
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_service.telemetry.signals import (
    NotificationReceived,
    RedisLost,
    Signal,
    Stopped,
    TurnCancelled,
)
from bridge_service.telemetry.throttle import Throttle, fan_out
from tests.support.signals import MATCH, SIGNALS, Clock

BOT = "0e7a2c5e-58a3-4f0e-9d0c-6a1d1f1a7a10"


def test_names_are_unique_and_stable_in_form() -> None:
    """Every signal has a name of its own, in English snake_case."""
    names = Counter(each.name for each in SIGNALS)
    assert len(names) == len(SIGNALS) > 30
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in names)


def test_fields_do_not_collide_with_the_keys_of_a_json_line() -> None:
    """No event has a field that a JSON line needs for something else."""
    keys = {"ts", "level", "logger", "event", "message", "held_back", "exception", "traceback", "name"}
    assert not {(each.name, field.name) for each in SIGNALS for field in fields(each) if field.name in keys}


def test_ids_have_one_type_everywhere() -> None:
    """A turn and a captured event are counted by int; a match, a message and a bot have a str."""
    types = {"turn_id": int, "event_id": int, "match_id": str, "message_id": str, "bot_id": str}
    for each in SIGNALS:
        for field in fields(each):
            assert field.type is types.get(field.name, field.type), (each.name, field.name)


def test_an_error_keeps_its_first_line() -> None:
    """The lines in which PostgreSQL quotes a row are gone before any subscriber sees the signal."""
    error = 'null value in column "sender_id" violates not-null constraint\nDETAIL:  Failing row contains (salut).\n'
    assert RedisLost(error=error).error == 'null value in column "sender_id" violates not-null constraint'
    assert TurnCancelled(1, MATCH, "reply", "gone\nsalut").reason == "gone"


def test_a_notification_forgets_content_at_once() -> None:
    """What the contract does not name is dropped, what is no id or time is masked, and match_id comes first."""
    payload = {
        "sender_id": BOT,
        "message_content": "canary",
        "content": "canary",
        "message": {"content": "canary"},
        "preview": "canary",
        "texts": ["canary"],
        "canary": 1,
        "canary in a key": 1,
        "bot_id": 4242424242424242,
        "message_id": "canary",
        "match_id": MATCH,
        "created_at": "2026-11-24T23:16:18.123456+00:00",
        "user1_id": None,
        "user2_id": ["canary"],
    }
    signal = NotificationReceived(pid=42, channel="bot_events", payload=payload, match_id=MATCH)
    assert "canary" not in repr(signal)
    assert "4242" not in repr(signal)
    assert list(signal.payload.items()) == [
        ("match_id", MATCH),
        ("bot_id", "…"),
        ("sender_id", BOT),
        ("message_id", "…"),
        ("user1_id", None),
        ("user2_id", "…"),
        ("created_at", "2026-11-24T23:16:18.123456+00:00"),
    ]


@pytest.mark.parametrize("time", ["2026-11-24 23:16:18+00", "2026-11-24T23:16:18Z", "2026-11-24T23:16:18.1"])
def test_a_notification_keeps_times(time: str) -> None:
    """The forms in which PostgreSQL and JSON write a time are shown."""
    assert NotificationReceived(1, "new_match", {"created_at": time}, MATCH).payload == {"created_at": time}


def test_fan_out_tells_everybody_in_turn() -> None:
    """Each subscriber hears of each event, in the order in which they were given."""
    heard: list[tuple[str, Signal]] = []
    emit = fan_out(lambda signal: heard.append(("first", signal)), lambda signal: heard.append(("second", signal)))
    signal = Stopped()
    emit(signal)
    assert heard == [("first", signal), ("second", signal)]


def test_fan_out_keeps_a_failure_from_everybody_else(caplog: pytest.LogCaptureFixture) -> None:
    """What a subscriber raises reaches nobody, and is logged once a second with the number of those before."""
    clock = Clock()
    heard: list[Signal] = []

    def fail(signal: Signal) -> None:
        raise RuntimeError(signal.name)

    emit = fan_out(fail, heard.append, clock=clock)
    for _ in range(3):
        emit(Stopped())
    assert len(heard) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "subscriber 0 failed on stopped (and 0 times unlogged before)"
    ]
    assert caplog.records[0].levelno == logging.ERROR
    clock.now += 1
    emit(Stopped())
    assert caplog.messages[1:] == ["subscriber 0 failed on stopped (and 2 times unlogged before)"]


def test_fan_out_lets_an_interrupt_through() -> None:
    """What ends a thread is no failure of a subscriber."""

    def interrupt(signal: Signal) -> None:
        raise KeyboardInterrupt(signal.name)

    with pytest.raises(KeyboardInterrupt):
        fan_out(interrupt)(Stopped())


@given(steps=st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0]), max_size=60), limit=st.integers(1, 5))
def test_a_throttle_never_lets_more_than_its_limit_pass_in_any_second(steps: list[float], limit: int) -> None:
    """Whatever the rhythm, no second holds more than the limit, reports are a second apart, and all is counted."""
    clock = Clock()
    throttle: Throttle[str, str] = Throttle(clock)
    passed: list[float] = []
    reports: list[float] = []
    counted = 0
    for step in steps:
        clock.now += step
        held_back = throttle.admit("key", "item", limit=limit)
        if held_back is not None:
            passed.append(clock.now)
        if held_back:
            reports.append(clock.now)
            counted += held_back
    assert all(later - earlier >= 1 for earlier, later in zip(passed, passed[limit:], strict=False))
    assert all(later - earlier >= 1 for earlier, later in itertools.pairwise(reports))
    counted += sum(count for _, _, count in throttle.release(everything=True))
    assert len(passed) + counted == len(steps)


def test_a_throttle_reports_at_most_once_a_second() -> None:
    """Where items that pass and items held back alternate, the counts add up until a second after the last report."""
    clock = Clock()
    throttle: Throttle[str, str] = Throttle(clock)
    results = []
    for second in (0, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0):
        clock.now = 1000 + second
        results.append(throttle.admit("key", "item", limit=2))
    assert results == [0, 0, None, 1, None, 0, None, 2]


def test_a_throttle_keeps_keys_apart() -> None:
    """One noisy key silences no other."""
    throttle: Throttle[str, str] = Throttle(Clock())
    assert throttle.admit("noisy", "a") == 0
    assert throttle.admit("noisy", "b") is None
    assert throttle.admit("other", "c") == 0


def test_a_throttle_releases_the_latest_item_when_its_second_is_over() -> None:
    """What was held back is reported once, after the second and without a further item, and takes an item's place."""
    clock = Clock()
    throttle: Throttle[str, str] = Throttle(clock)
    for item in ("a", "b", "c"):
        throttle.admit("key", item)
    clock.now += 0.99
    assert throttle.release() == []
    clock.now += 0.01
    assert throttle.release() == [("key", "c", 2)]
    assert throttle.release(everything=True) == []
    assert throttle.admit("key", "d") is None
