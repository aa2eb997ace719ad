"""When to look: APScheduler's jobs, and the thread that pushes when one of them, or a bell, says so.

A job only sets an event. Whatever is lost, late or doubled here changes a moment and never a message: the table says
what is due, and the sweep looks at all of it every few seconds.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from bridge_service.errors import BridgeError, DatabaseBusy
from bridge_service.machine.steps import Due, Store
from bridge_service.telemetry.signals import Emit, Pruned, database_trouble

SWEEP_SECONDS: Final = 5.0
PRUNE_SECONDS: Final = 3600.0
PRUNE_BATCH: Final = 1000
RETRY_SECONDS: Final = 1.0

IDLE_SECONDS: Final = 10.0
"""APScheduler goes by the clock on the wall: if that is set back, no job comes, and this thread sweeps by itself."""

PASS_SECONDS: Final = 0.02
"""Passes are this far apart under load; the first one comes at once."""


class Pusher(Protocol):
    """What pushes; see push.Pusher."""

    def push_due(self, beat: Callable[[], None]) -> int:
        """Push what is due."""

    @property
    def waits_for_redis(self) -> bool:
        """Whether Redis is away."""


class Jobs(BackgroundScheduler):  # type: ignore[misc]  # apscheduler has no types
    """APScheduler's jobs, of which one that is gone already may be removed.

    Its own thread removes a date job once it has handed it out, and finds none if `shutdown` came in between: that
    would end the thread with a traceback.
    """

    def remove_job(self, job_id: str, jobstore: str | None = None) -> None:
        """Remove a job, if it is there."""
        with contextlib.suppress(JobLookupError):
            super().remove_job(job_id, jobstore)


class Planner:
    """Plans the next look and pushes when it comes."""

    def __init__(
        self,
        store: Store,
        pusher: Pusher,
        *,
        look: Callable[[], None],
        emit: Emit,
        stopping: threading.Event,
        beat: Callable[[], None],
        retention_days: float,
    ) -> None:
        """Wire a planner.

        Parameters:
          look: asks the listener for a full look at what no notification announced.
          beat: called each time the loop turns, for the watchdog.
          retention_days: how long finished turns are kept.
        """
        self._store = store
        self._pusher = pusher
        self._look = look
        self._emit = emit
        self._stopping = stopping
        self._beat = beat
        self._retention_days = retention_days
        self._wanted = threading.Event()
        self._jobs = Jobs(
            timezone=UTC,
            # 1 s, the default, drops a job for good that was late by more (a frozen process).
            # And 1 instance drops a date job that is due before its predecessor is seen to have ended.
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 10},
        )

    def start(self) -> None:
        """Start APScheduler; the first pass is due at once."""
        self._jobs.add_job(self.wake, "interval", seconds=SWEEP_SECONDS, id="push_sweep")
        self._jobs.add_job(self._look, "interval", seconds=SWEEP_SECONDS, id="look_sweep")
        self._jobs.add_job(
            self._begin_pruning,
            "interval",
            seconds=PRUNE_SECONDS,
            id="prune",
            next_run_time=datetime.now(UTC) + timedelta(minutes=1),
        )
        self._jobs.start()
        self.wake()

    def wake(self) -> None:
        """Ask for a pass; from any thread, at once."""
        self._wanted.set()

    def stop(self) -> None:
        """Stop planning; twice is harmless."""
        self._wanted.set()
        if self._jobs.running:
            self._jobs.shutdown(wait=False)

    def run(self) -> None:
        """Push whenever asked, until told to stop."""
        while not self._stopping.is_set():
            if self._pusher.waits_for_redis:
                self._wanted.wait(RETRY_SECONDS)  # the pusher probes it
            elif not self._wanted.wait(IDLE_SECONDS):
                self._look()
            self._wanted.clear()
            self._beat()
            if self._stopping.is_set():
                return
            began = time.monotonic()
            try:
                self._pusher.push_due(self._beat)
                self._plan(self._store.next_due())
            except DatabaseBusy:
                self.wake()
            except BridgeError as error:
                self._emit(database_trouble(error))
                self._stopping.wait(RETRY_SECONDS)
                self.wake()
            self._stopping.wait(max(0.0, began + PASS_SECONDS - time.monotonic()))

    def _plan(self, due: Due) -> None:
        """Plan the two date jobs anew from the table: what was planned before may be done, or no longer the first."""
        for name, due_at in (("flush", due.flush_at), ("initiation", due.initiation_at)):
            if due_at is None:
                self._jobs.remove_job(name)  # or none was planned, or it rings just now
                continue
            seconds = (due_at - due.now).total_seconds()
            if seconds <= 0 and not self._pusher.waits_for_redis:
                self.wake()
            elif seconds > 0:
                self._jobs.add_job(
                    self.wake,
                    "date",
                    run_date=datetime.now(UTC) + timedelta(seconds=seconds),
                    id=name,
                    replace_existing=True,
                )

    def _begin_pruning(self) -> None:
        # The interpreter waits for APScheduler's own threads before it exits, and in an outage a call may take long.
        threading.Thread(target=self._prune, name="prune", daemon=True).start()

    def _prune(self) -> None:
        try:
            pruned = 0
            while not self._stopping.is_set() and (count := self._store.prune(self._retention_days, PRUNE_BATCH)):
                pruned += count
            if pruned:
                self._emit(Pruned(pruned))
        except DatabaseBusy:
            return  # the next hour's turn
        except BridgeError as error:
            self._emit(database_trouble(error))
