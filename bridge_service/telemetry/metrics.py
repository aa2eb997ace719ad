"""The numbers for Prometheus: each signal as a count.

A process shows what it did itself; the console reads from PostgreSQL what the whole bridge owes. No label holds an id.
Every value of a label exists from the start, so the number of series never grows and a counter's first step is seen.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import prometheus_client.values
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from bridge_service.telemetry import signals
from bridge_service.telemetry.signals import Signal
from bridge_service.version import VERSION

# If PROMETHEUS_MULTIPROC_DIR is set, the library counts into files, and fails where it cannot write them. Only a worker
# with HEALTH_PORT counts into files, and web/shared_numbers.py makes their folder.
prometheus_client.values.ValueClass = prometheus_client.values.MutexValue

LATENESS_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_CAUSES: Final = {"delivery": "delivery", "DatabaseRefused": "postgresql"}
"""The cause of a failed try, by the error's type; every other type came from the responder."""

RESPONDER_SECONDS: Final = (0.005, 0.05, 0.25, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

OTHER: Final = "other"
_REASONS: Final = ("message", "gone", "refused")
_SQLSTATE: Final = re.compile(r"\(SQLSTATE ([0-9A-Z]{2})[0-9A-Z]{3}\)$")
_SQLSTATE_CLASSES: Final = ("08", "25", "28", "3F", "40", "42", "53", "55", "57", "58", "XX")
_NO_SQLSTATE: Final = "none"


def show_build(registry: CollectorRegistry) -> None:
    """Show which version runs: a 1 with the version as a label, as is the custom."""
    gauge = Gauge(
        "bridge_build_info", "The version that runs.", ["version"], registry=registry, multiprocess_mode="max"
    )
    gauge.labels(VERSION).set(1)


class Metrics:
    """A subscriber that counts signals. Safe to call from any thread.

    Parameters:
      registry: where the numbers stand; one `Metrics` a registry.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        show_build(registry)

        def counter(name: str, documentation: str) -> Counter:
            return Counter(name, documentation, registry=registry)

        def counters(name: str, documentation: str, label: str, values: Sequence[str]) -> Callable[[str], Counter]:
            family = Counter(name, documentation, [label], registry=registry)
            children = {value: family.labels(value) for value in values}
            return lambda value: children.get(value) or family.labels(OTHER)

        self._captured = counters(
            "bridge_events_captured_total",
            "Captured events that this process has grouped into turns.",
            "kind",
            ("message", "match"),
        )
        self._set_aside = counter("bridge_events_set_aside_total", "Batches of events that could not be grouped.")
        self._notifications = counters(
            "bridge_notifications_total", "Notifications, understood or not.", "result", ("received", "rejected")
        )
        self._pushed = counters(
            "bridge_turns_pushed_total",
            "Turns pushed to the queue for the first time.",
            "kind",
            ("reply", "initiation", "follow_up"),
        )
        self._recovered = counters(
            "bridge_recovered_total",
            "Turns whose worker died (lease) and pushes that were believed lost and made again (push).",
            "reason",
            ("lease", "push", OTHER),
        )
        self._enqueue_errors = counters(
            "bridge_enqueue_errors_total",
            "Attempts to push that Redis did not take, and outages after which it was given up for the time being.",
            "type",
            ("attempt", "given_up"),
        )
        self._redis_lost = counter("bridge_redis_lost_total", "Times that a consumer lost Redis or failed to reach it.")
        self._db_errors = counters(
            "bridge_db_errors_total",
            "Failed calls of PostgreSQL, by the class of their SQLSTATE; none: the connection failed.",
            "sqlstate_class",
            (*_SQLSTATE_CLASSES, _NO_SQLSTATE, OTHER),
        )
        self._turns = counters(
            "bridge_turns_total",
            "Turns that this process has brought to an end.",
            "outcome",
            ("answered", "interrupted", "silent", "cancelled", "superseded", "dead"),
        )
        self._failures = counters(
            "bridge_turn_failures_total",
            "Tries that failed: the responder raised or was away, or PostgreSQL refused the turn or its reply.",
            "cause",
            ("responder", "responder_away", "postgresql", "delivery"),
        )
        self._replies = counter("bridge_replies_total", "Replies delivered, without initiations and follow-ups.")
        self._answered = counter("bridge_messages_answered_total", "Messages covered by delivered replies.")
        self._initiations = counters(
            "bridge_initiations_total",
            "Initiations that ended in a claim or delivery: delivered, or the reason for which they were cancelled.",
            "outcome",
            ("delivered", *_REASONS, OTHER),
        )
        self._lateness = Histogram(
            "bridge_reply_lateness_seconds",
            "From the second for which a delivery was planned to the delivery.",
            buckets=LATENESS_SECONDS,
            registry=registry,
        )
        self._responder = Histogram(
            "bridge_responder_duration_seconds",
            "How long the responder took to return or raise.",
            buckets=RESPONDER_SECONDS,
            registry=registry,
        )
        self._calls = counters(
            "bridge_model_calls_total",
            "Calls of a model that are over.",
            "outcome",
            ("answered", "refused", "cancelled", OTHER),
        )
        self._tokens = counters(
            "bridge_model_tokens_total",
            "Tokens of these calls; of a cancelled one what was reserved for it.",
            "direction",
            ("in", "out"),
        )
        self._held = counters(
            "bridge_turns_held_total",
            "Times that a turn was put off, by the limit; or by quiet hours, if it was pushed before them.",
            "cause",
            ("limit_calls", "limit_tokens", "limit_replies", "hours", "paused", OTHER),
        )
        self._distress = counter(
            "bridge_distress_total", "Times that a claim found a word of distress in a message for the first time."
        )
        self._duplicates = counters(
            "bridge_duplicates_prevented_total",
            "Steps that found their work done, or given to another worker: nothing was said twice.",
            "stage",
            ("claim", "finish", "hold", "deliver"),
        )
        self._bad_messages = counter("bridge_bad_broker_messages_total", "Messages in the queue that are none of ours.")
        self._pruned = counter("bridge_pruned_turns_total", "Finished turns deleted for their age.")
        # Of several processes that share a registry, the one furthest behind is shown.
        self._loops = Gauge(
            "bridge_loop_last_success_timestamp_seconds",
            "When each of the process's loops last turned.",
            ["loop"],
            registry=registry,
            multiprocess_mode="livemin",
        )
        self._registry = registry

    def __call__(self, signal: Signal) -> None:  # noqa: C901, PLR0912, PLR0915 - one case a signal
        """Count the signal."""
        match signal:
            case signals.MessageGrouped():
                self._captured("message").inc()
            case signals.MatchDetected():
                self._captured("match").inc()
            case signals.EventSetAside():
                self._set_aside.inc()
            case signals.NotificationReceived():
                self._notifications("received").inc()
            case signals.NotificationRejected():
                self._notifications("rejected").inc()
            case signals.TurnPushed(kind=kind):
                self._pushed(kind).inc()
            case signals.TurnsRecovered(count=count, reason=reason):
                self._recovered(reason).inc(count)
            case signals.PushesRepeated(count=count):
                self._recovered("push").inc(count)
            case signals.RedisAttemptFailed():
                self._enqueue_errors("attempt").inc()
            case signals.RedisGivenUp():
                self._enqueue_errors("given_up").inc()
            case signals.RedisLost() | signals.WaitingForRedis():
                self._redis_lost.inc()
            case (
                signals.PostgresLost(error=error)
                | signals.PostgresRefused(error=error)
                | signals.WaitingForPostgres(error=error)
            ):
                found = _SQLSTATE.search(error)
                self._db_errors(found[1] if found else _NO_SQLSTATE).inc()
            case signals.ReplyDelivered():
                self._delivered(signal)
            case signals.ReplyInterrupted():
                self._turns("interrupted").inc()
            case signals.TurnSilent():
                self._turns("silent").inc()
            case signals.TurnCancelled(kind=kind, reason=reason):
                self._turns("cancelled").inc()
                if kind == "initiation":
                    self._initiations(reason).inc()
            case signals.TurnSuperseded():
                self._turns("superseded").inc()
            case signals.TurnDead():
                self._turns("dead").inc()
            case signals.TurnFailed(error_type=error_type):
                self._failures(_CAUSES.get(error_type.partition(":")[0], "responder")).inc()
            case signals.ResponderAway():
                self._failures("responder_away").inc()
            case signals.CallSettled():
                self._called(signal)
            case signals.TurnHeld(cause=cause):
                self._held(cause).inc()
            case signals.TurnPaused():
                self._held("paused").inc()
            case signals.TurnQuiet():
                self._held("hours").inc()
            case signals.RepliesLimited():
                self._held("limit_replies").inc()
            case signals.Distress():
                self._distress.inc()
            case signals.DuplicatePrevented(stage=stage):
                self._duplicates(stage).inc()
            case signals.BadBrokerMessage():
                self._bad_messages.inc()
            case signals.Pruned(turns=turns):
                self._pruned.inc(turns)

    def _called(self, signal: signals.CallSettled) -> None:
        self._calls(signal.outcome).inc()
        self._tokens("in").inc(signal.tokens_in)
        self._tokens("out").inc(signal.tokens_out)

    def _delivered(self, signal: signals.ReplyDelivered) -> None:
        self._turns("answered").inc()
        self._lateness.observe(max(0.0, signal.lateness_seconds))
        if signal.kind == "initiation":
            self._initiations("delivered").inc()
        elif signal.kind == "reply":
            self._replies.inc()
            self._answered.inc(signal.covered)

    def responder_took(self, seconds: float) -> None:
        """Note how long a responder took."""
        self._responder.observe(seconds)

    def loops_turned(self, ages: Mapping[str, float], now: float) -> None:
        """Note when each loop last turned. Every process calls this once a second.

        Parameters:
          ages: seconds since then, by the loop's name; see Watchdog.ages.
          now: seconds since the epoch.
        """
        for loop, age in ages.items():
            self._loops.labels(loop).set(now - age)

    def listener(self, connected: Callable[[], bool]) -> None:
        """Show at each scrape what `connected` returns; only for the scheduler, which shares its registry with none."""
        Gauge(
            "bridge_listener_connected",
            "1 while the listener has its connection to PostgreSQL.",
            registry=self._registry,
        ).set_function(lambda: float(connected()))
