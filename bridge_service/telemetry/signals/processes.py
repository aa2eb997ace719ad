"""What happens to a process: its start, its upkeep, its end."""

import logging
from collections.abc import Mapping

from bridge_service.telemetry.signals.base import Signal


class ProcessStarted(Signal):
    """A process has started with these settings, none of them secret."""

    summary: Mapping[str, str]
    role: str


class PlaintextUrl(Signal, level=logging.WARNING):
    """At the start: the connection of this variable leaves the machine, and its URL does not demand encryption."""

    variable: str


class PagesOpen(Signal, level=logging.WARNING):
    """At the start: this variable's port shows pages and numbers to other machines without a token."""

    variable: str


class CheckFailed(Signal, level=logging.WARNING):
    """At the start: a look of checks/ found a fault of PostgreSQL; `check` is the look's name."""

    check: str
    detail: str
    remedy: str


class FatalError(Signal, level=logging.CRITICAL):
    """The process ends because of this."""

    error: str


class WatchdogBarked(Signal, level=logging.CRITICAL):
    """A loop has not turned for `seconds`; the process ends."""

    loop: str
    seconds: float


class ParentLost(Signal, level=logging.WARNING):
    """Dramatiq's parent, which would end this worker, is gone; so the worker ends by itself."""


class Draining(Signal):
    """The process was told to end. It finishes what it holds, for at most `seconds`."""

    seconds: float


class Stopped(Signal):
    """The process has ended in order."""


class Pruned(Signal):
    """`turns` finished turns were older than RETENTION_DAYS and were deleted, with their events."""

    turns: int


class LinesHeldBack(Signal):
    """The journal left out `count` lines of the signal `of`; only the journal reports this."""

    of: str
    count: int
