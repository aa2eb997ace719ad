"""The figures of the whole bridge for Prometheus, as PostgreSQL holds them.

While PostgreSQL does not answer, only the two `_up` figures are shown: a 0 would look like good news. A time is a
timestamp, 0 if there is none. An age would stand still when the console does.
"""

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bridge_service.checks.standing import OK
from bridge_service.web.observer import Figures, Look

UNFINISHED: Final = ("open", "queued", "composing", "typing")

HELD: Final = ("paused", "hours", "waking", "limit_replies", "limit_calls", "limit_tokens")
"""Why a turn is held; each has a series, also while none is."""

_GAUGES: Final = (
    ("bridge_turns_overdue", "Turns that are due and not taken yet.", "overdue"),
    ("bridge_dead_letters", "Turns that were given up and wait for an operator.", "dead"),
    ("bridge_inbox_open", "Captured events that are not grouped yet.", "inbox_open"),
    (
        "bridge_oldest_unanswered_timestamp_seconds",
        "Capture of the oldest message that waits for its reply; 0 if none waits.",
        "oldest_unanswered_at",
    ),
    ("bridge_conversations_paused", "Paused conversations, without those of a paused bot.", "paused"),
    ("bridge_conversations_taken_over", "Paused conversations in which a human wrote.", "taken_over"),
    ("bridge_bots_paused", "Bots that an operator has paused.", "bots_paused"),
    (
        "bridge_clock_offset_seconds",
        "By how much PostgreSQL's clock is ahead of that of the console's machine.",
        "clock_offset",
    ),
    (
        "bridge_notify_queue_usage_ratio",
        "How full PostgreSQL's queue of notifications is; full, it fails the app's commits.",
        "notify_queue_usage",
    ),
)
"""Name, meaning, and the field of Figures."""


class BridgeCollector(Collector):
    """Shows one look."""

    def __init__(self, look: Look) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        """Return the figures."""
        postgresql, redis = self._look.postgresql.word == OK, self._look.redis.word == OK
        answers = "1 if PostgreSQL answers and the bridge's schema is there."
        yield GaugeMetricFamily("bridge_postgresql_up", answers, postgresql)
        yield GaugeMetricFamily("bridge_redis_up", "1 if Redis answers.", redis)
        if self._look.figures is not None:
            yield from _figures(self._look.figures)


def _figures(figures: Figures) -> Iterator[Metric]:
    for name, meaning, field in _GAUGES:
        yield GaugeMetricFamily(name, meaning, getattr(figures, field) or 0)
    captures = "Captures by the triggers, with repeats and those rolled back."
    yield CounterMetricFamily("bridge_captures_total", captures, figures.captures)
    turns = GaugeMetricFamily("bridge_turns", "Turns that are not finished.", labels=["state"])
    for state in UNFINISHED:
        turns.add_metric([state], getattr(figures, state))
    yield turns
    held = GaugeMetricFamily("bridge_turns_on_hold", "Open turns that are held on purpose.", labels=["cause"])
    for cause, count in {**dict.fromkeys(HELD, 0), **figures.held}.items():
        held.add_metric([cause], count)
    yield held
    alive = "Processes that have lately told PostgreSQL that they live."
    processes = GaugeMetricFamily("bridge_processes", alive, labels=["role"])
    for role, count in figures.processes.items():
        processes.add_metric([role], count)
    yield processes
