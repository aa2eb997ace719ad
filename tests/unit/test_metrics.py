"""Events become numbers, under known names and known labels, however many conversations there are."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from bridge_service.telemetry import signals
from bridge_service.telemetry.metrics import Metrics
from bridge_service.turns import Kind
from tests.support.signals import MATCH, SIGNALS, sample

if TYPE_CHECKING:
    from bridge_service.telemetry.signals import Signal

ROOT = Path(__file__).parents[2]
TURN = 7


@pytest.fixture
def registry() -> CollectorRegistry:
    """Give an empty registry."""
    return CollectorRegistry()


def delivered(kind: Kind = Kind.REPLY, *, covered: int = 3, late: float = 0.2) -> Signal:
    """Return the event of a delivered reply."""
    return signals.ReplyDelivered(TURN, MATCH, str(uuid4()), kind, 12, covered, late)


def series(registry: CollectorRegistry) -> set[str]:
    """Return every series, without its value."""
    lines = generate_latest(registry).decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if line and not line.startswith("#")}


@pytest.mark.parametrize(
    ("signal", "name", "labels", "value"),
    [
        (signals.MessageGrouped(MATCH, TURN, 1, 1, 15), "bridge_events_captured_total", {"kind": "message"}, 1),
        (signals.MatchDetected(MATCH, MATCH), "bridge_events_captured_total", {"kind": "match"}, 1),
        (signals.EventSetAside(1, MATCH, "x"), "bridge_events_set_aside_total", {}, 1),
        (
            signals.NotificationReceived(1, "bot_events", {}, MATCH),
            "bridge_notifications_total",
            {"result": "received"},
            1,
        ),
        (signals.NotificationRejected("bot_events", "x"), "bridge_notifications_total", {"result": "rejected"}, 1),
        (signals.TurnPushed(TURN, MATCH, Kind.REPLY), "bridge_turns_pushed_total", {"kind": "reply"}, 1),
        (signals.TurnPushed(TURN, MATCH, Kind.INITIATION), "bridge_turns_pushed_total", {"kind": "initiation"}, 1),
        (signals.TurnsRecovered(4, "lease"), "bridge_recovered_total", {"reason": "lease"}, 4),
        (signals.PushesRepeated(5), "bridge_recovered_total", {"reason": "push"}, 5),
        (signals.RedisAttemptFailed(1, 3, "x"), "bridge_enqueue_errors_total", {"type": "attempt"}, 1),
        (signals.RedisGivenUp(3), "bridge_enqueue_errors_total", {"type": "given_up"}, 1),
        (signals.RedisLost("x"), "bridge_redis_lost_total", {}, 1),
        (signals.PostgresLost("gone (SQLSTATE 57P01)"), "bridge_db_errors_total", {"sqlstate_class": "57"}, 1),
        (signals.PostgresLost("no answer"), "bridge_db_errors_total", {"sqlstate_class": "none"}, 1),
        (signals.PostgresRefused("no (SQLSTATE 42501)"), "bridge_db_errors_total", {"sqlstate_class": "42"}, 1),
        (signals.PostgresLost("odd (SQLSTATE ZZ123)"), "bridge_db_errors_total", {"sqlstate_class": "other"}, 1),
        (delivered(), "bridge_turns_total", {"outcome": "answered"}, 1),
        (delivered(), "bridge_replies_total", {}, 1),
        (delivered(), "bridge_messages_answered_total", {}, 3),
        (delivered(late=0.2), "bridge_reply_lateness_seconds_bucket", {"le": "0.25"}, 1),
        (delivered(late=0.2), "bridge_reply_lateness_seconds_bucket", {"le": "0.1"}, 0),
        (delivered(Kind.INITIATION, covered=0), "bridge_initiations_total", {"outcome": "delivered"}, 1),
        (delivered(Kind.INITIATION, covered=0), "bridge_replies_total", {}, 0),
        (signals.TurnCancelled(TURN, MATCH, Kind.REPLY, "gone"), "bridge_turns_total", {"outcome": "cancelled"}, 1),
        (
            signals.TurnCancelled(TURN, MATCH, Kind.INITIATION, "message"),
            "bridge_initiations_total",
            {"outcome": "message"},
            1,
        ),
        (signals.Distress(TURN, MATCH, 3), "bridge_distress_total", {}, 1),
        (signals.TurnSilent(TURN, MATCH, Kind.REPLY, 2), "bridge_turns_total", {"outcome": "silent"}, 1),
        (signals.TurnHeld(TURN, MATCH, "limit_calls", "x"), "bridge_turns_held_total", {"cause": "limit_calls"}, 1),
        (signals.TurnPaused(TURN, MATCH, "x"), "bridge_turns_held_total", {"cause": "paused"}, 1),
        (signals.TurnQuiet(TURN, MATCH, "x"), "bridge_turns_held_total", {"cause": "hours"}, 1),
        (signals.RepliesLimited(TURN, MATCH, "x"), "bridge_turns_held_total", {"cause": "limit_replies"}, 1),
        (signals.ReplyInterrupted(TURN, MATCH, "gone", 1, 2), "bridge_turns_total", {"outcome": "interrupted"}, 1),
        (signals.TurnSuperseded(TURN, MATCH, 1), "bridge_turns_total", {"outcome": "superseded"}, 1),
        (signals.TurnDead(TURN, MATCH, "ValueError"), "bridge_turns_total", {"outcome": "dead"}, 1),
        (signals.TurnFailed(TURN, MATCH, "ValueError", 1), "bridge_turn_failures_total", {"cause": "responder"}, 1),
        (
            signals.TurnFailed(TURN, MATCH, "DatabaseRefused", 1),
            "bridge_turn_failures_total",
            {"cause": "postgresql"},
            1,
        ),
        (signals.TurnFailed(TURN, MATCH, "delivery", 1), "bridge_turn_failures_total", {"cause": "delivery"}, 1),
        (
            signals.ResponderAway(TURN, MATCH, "Timeout", 5),
            "bridge_turn_failures_total",
            {"cause": "responder_away"},
            1,
        ),
        *(
            (signals.DuplicatePrevented(TURN, stage), "bridge_duplicates_prevented_total", {"stage": stage}, 1)
            for stage in ("claim", "finish", "deliver")
        ),
        (signals.BadBrokerMessage("x"), "bridge_bad_broker_messages_total", {}, 1),
        (signals.Pruned(6), "bridge_pruned_turns_total", {}, 6),
    ],
)
def test_what_an_event_counts(
    registry: CollectorRegistry, signal: Signal, name: str, labels: dict[str, str], value: float
) -> None:
    """An event is counted under its name and label; before it the series is there and shows 0."""
    metrics = Metrics(registry)
    assert registry.get_sample_value(name, labels) == 0

    metrics(signal)

    assert registry.get_sample_value(name, labels) == value


def test_no_series_is_made_by_traffic(registry: CollectorRegistry) -> None:
    """However many conversations and whatever texts there are, the series stay the ones that were there at first."""
    metrics = Metrics(registry)
    before = series(registry)

    for number in range(1000):
        for kind in SIGNALS:
            metrics(sample(kind, text=f"{number} {uuid4()}"))

    # What no label foresees has one series a family, not one a text.
    made = series(registry) - before
    assert {line.partition("{")[2] for line in made} <= {'kind="other"}', 'stage="other"}'}
    assert len(made) == 4  # the counters and the times they were made


def test_no_id_and_no_text_is_a_label(registry: CollectorRegistry) -> None:
    """Nothing that an event carries as a text turns up among the numbers."""
    metrics = Metrics(registry)

    for kind in SIGNALS:
        metrics(sample(kind, text="canary-3f1c"))

    assert b"canary-3f1c" not in generate_latest(registry)


def test_every_event_is_taken(registry: CollectorRegistry) -> None:
    """No event makes the subscriber raise."""
    metrics = Metrics(registry)

    for kind in SIGNALS:
        metrics(sample(kind))


def test_loops(registry: CollectorRegistry) -> None:
    """A loop's last turn is shown as a time, not as an age."""
    Metrics(registry).loops_turned({"planner": 2.0, "listener": 40.0}, now=1000.0)

    name = "bridge_loop_last_success_timestamp_seconds"
    assert registry.get_sample_value(name, {"loop": "planner"}) == 998
    assert registry.get_sample_value(name, {"loop": "listener"}) == 960


def test_the_version_that_runs(registry: CollectorRegistry) -> None:
    """Each process shows the version of its code, the one of pyproject.toml, as a label."""
    Metrics(registry)

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert registry.get_sample_value("bridge_build_info", {"version": project["version"]}) == 1


def test_the_listener_is_shown_only_where_there_is_one(registry: CollectorRegistry) -> None:
    """The listener's gauge follows its connection; a process without a listener does not show a 0."""
    name = "bridge_listener_connected"
    metrics = Metrics(registry)
    assert registry.get_sample_value(name) is None

    connected = [False]
    metrics.listener(lambda: connected[0])

    assert registry.get_sample_value(name) == 0
    connected[0] = True
    assert registry.get_sample_value(name) == 1


def test_the_responders_time(registry: CollectorRegistry) -> None:
    """How long a responder took is in its histogram, in seconds."""
    Metrics(registry).responder_took(0.5)

    assert registry.get_sample_value("bridge_responder_duration_seconds_sum") == 0.5
    assert registry.get_sample_value("bridge_responder_duration_seconds_bucket", {"le": "0.25"}) == 0
    assert registry.get_sample_value("bridge_responder_duration_seconds_bucket", {"le": "1.0"}) == 1


def test_the_names_are_prometheus_names(registry: CollectorRegistry) -> None:
    """Each name has a known prefix and its unit, or `_total`, at its end."""
    Metrics(registry).listener(lambda: True)

    names = {family.name: family for family in registry.collect()}
    assert names
    for name, family in names.items():
        assert name.startswith("bridge_")
        assert family.documentation.endswith(".")
        if family.type == "histogram":
            assert name.endswith("_seconds")
        if family.type == "counter":
            assert not name.endswith("_total"), "the library adds it"
