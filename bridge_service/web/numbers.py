"""The figures of the whole bridge for Prometheus, as PostgreSQL holds them.

Where PostgreSQL does not tell, only the two `_up` figures are shown: a 0 would look like good news. A time is 0 while
there is nothing to date, and never an age: an age stands still when the console does.
"""

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bridge_service.checks.standing import OK
from bridge_service.web.observer import Figures, Look

UNFINISHED: Final = ("open", "queued", "composing", "typing")


class BridgeCollector(Collector):
    """Shows one look."""

    def __init__(self, look: Look) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        """Return the figures."""
        return _families(self._look)


def _families(look: Look) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "bridge_postgresql_up", "1 if PostgreSQL answers and the bridge's schema is there.", look.postgresql.word == OK
    )
    yield GaugeMetricFamily("bridge_redis_up", "1 if Redis answers.", look.redis.word == OK)
    if look.figures is not None:
        yield from _figures(look.figures)


def _figures(figures: Figures) -> Iterator[Metric]:
    turns = GaugeMetricFamily("bridge_turns", "Turns that are not finished.", labels=["state"])
    for state in UNFINISHED:
        turns.add_metric([state], getattr(figures, state))
    yield turns
    yield GaugeMetricFamily("bridge_turns_overdue", "Turns that are due and not taken yet.", figures.overdue)
    yield GaugeMetricFamily("bridge_dead_letters", "Turns that were given up and wait for an operator.", figures.dead)
    yield GaugeMetricFamily("bridge_inbox_open", "Captured events that are not grouped yet.", figures.inbox_open)
    yield CounterMetricFamily(
        "bridge_captures_total", "Captures by the triggers, with repeats and those rolled back.", figures.captures
    )
    yield GaugeMetricFamily(
        "bridge_oldest_unanswered_timestamp_seconds",
        "Capture of the oldest message that waits for its reply; 0 if none waits.",
        figures.oldest_unanswered_at or 0,
    )
    processes = GaugeMetricFamily(
        "bridge_processes", "Processes that have lately told PostgreSQL that they live.", labels=["role"]
    )
    for role, count in figures.processes.items():
        processes.add_metric([role], count)
    yield processes
    yield GaugeMetricFamily(
        "bridge_clock_offset_seconds",
        "By how much PostgreSQL's clock is ahead of that of the console's machine.",
        figures.clock_offset,
    )
    yield GaugeMetricFamily(
        "bridge_notify_queue_usage_ratio",
        "How full PostgreSQL's queue of notifications is; full, it fails the app's commits.",
        figures.notify_queue_usage,
    )
