"""When to push: APScheduler's jobs, and the loop that makes a pass when a job or a bell asks for it.

A job only sets an Event. A job that is lost, late or doubled delays a push and never loses a message: the table says
what is due, and a sweep makes a pass every `SWEEP_SECONDS`.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from bridge_service.errors import BridgeError, DatabaseBusy
from bridge_service.machine.answers import Due
from bridge_service.machine.steps import Store
from bridge_service.process.loop import Loop
from bridge_service.telemetry.signals import Emit, Pruned, database_trouble
from schedulers.push import Pusher

SWEEP_SECONDS: Final = 5.0
PRUNE_SECONDS: Final = 3600.0
PRUNE_BATCH: Final = 1000
MINUTES_SECONDS: Final = 60.0
MINUTES_BATCH: Final = 10
"""Minutes that one call counts: a backlog of them, as after an upgrade, holds up no other step."""

RETRY_SECONDS: Final = 1.0

IDLE_SECONDS: Final = 10.0
"""APScheduler goes by the system's clock. If that is set back no job comes, so the loop sweeps by itself."""

PASS_SECONDS: Final = 0.02
"""Passes are this far apart under load; the first one comes at once."""


class Jobs(BackgroundScheduler):  # type: ignore[misc]  # apscheduler has no types
    """APScheduler's jobs; removing a job that is gone is no error.

    APScheduler's thread removes a date job after it has submitted it. If `shutdown` came in between, the job is gone,
    and the error would end the thread with a traceback.
    """

    def remove_job(self, job_id: str, jobstore: str | None = None) -> None:
        """Remove a job, if it is there."""
        with contextlib.suppress(JobLookupError):
            super().remove_job(job_id, jobstore)


class Planner(Loop):
    """Plans the next pass, and pushes when it comes."""

    def __init__(
        self,
        store: Store,
        pusher: Pusher,
        upkeep: Store,
        *,
        look: Callable[[], None],
        emit: Emit,
        retention_days: float,
    ) -> None:
        """Wire a planner.

        Parameters:
          upkeep: for retention and minutes, which run beside the passes.
          look: asks the listener for a look at every ungrouped event.
          retention_days: how long finished turns are kept.
        """
        super().__init__("planner")
        self._store = store
        self._pusher = pusher
        self._upkeep = upkeep
        self._look = look
        self._emit = emit
        self._retention_days = retention_days
        self._wanted = threading.Event()
        self._keeping = threading.Lock()
        """Held by the one thread that does upkeep."""
        self._sweeping = False
        self._jobs = Jobs(
            timezone=UTC,
            # A4: the default grace of 1 s drops a job that a frozen process missed; one instance drops a date job that
            # is due while its predecessor runs.
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 10},
        )

    def first(self) -> None:
        """Start APScheduler; the first pass is due at once."""
        self._jobs.add_job(self._sweep, "interval", seconds=SWEEP_SECONDS, id="push_sweep")
        self._jobs.add_job(self._look, "interval", seconds=SWEEP_SECONDS, id="look_sweep")
        self._jobs.add_job(
            self._begin_pruning,
            "interval",
            seconds=PRUNE_SECONDS,
            id="prune",
            next_run_time=datetime.now(UTC) + timedelta(minutes=1),
        )
        self._jobs.add_job(self._begin_minutes, "interval", seconds=MINUTES_SECONDS, id="minutes")
        self._jobs.start()
        self.wake()

    def wake(self) -> None:
        """Ask for a pass; from any thread, at once."""
        self._wanted.set()

    def _sweep(self) -> None:
        self._sweeping = True
        self.wake()

    def last(self) -> None:
        """Stop APScheduler."""
        if self._jobs.running:
            self._jobs.shutdown(wait=False)

    def turn(self) -> None:
        """Wait until a pass is asked for, and make it."""
        if self._pusher.waits_for_redis:
            self._wanted.wait(RETRY_SECONDS)  # the pusher probes Redis
        elif not self._wanted.wait(IDLE_SECONDS):
            self._look()
        self._wanted.clear()
        if self.stopping.is_set():
            return
        began = time.monotonic()
        try:
            if self._sweeping:
                self._sweeping = False
                self._store.plan_held()
            self._pusher.push_due(self.beat)
            self._plan(self._store.next_due())
        except DatabaseBusy:
            self.wake()
        except BridgeError as error:
            self._emit(database_trouble(error))
            self.pause(RETRY_SECONDS)
            self.wake()
        self.pause(max(0.0, began + PASS_SECONDS - time.monotonic()))

    def _plan(self, due: Due) -> None:
        """Plan the two date jobs anew from the table: what they stood for may be done, or no longer the earliest."""
        for name, due_at in (("flush", due.flush_at), ("initiation", due.initiation_at)):
            if due_at is None:
                self._jobs.remove_job(name)
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
        # Before it exits, the interpreter waits for APScheduler's threads, and a call may take long in an outage.
        threading.Thread(target=self._keep_up, args=(self._prune,), name="prune", daemon=True).start()

    def _begin_minutes(self) -> None:
        if not self._keeping.locked():  # during a long pruning threads would pile up; the next run counts the minutes
            threading.Thread(target=self._keep_up, args=(self._close_minutes,), name="minutes", daemon=True).start()

    def _keep_up(self, work: Callable[[], None]) -> None:
        try:
            with self._keeping:
                work()
        except DatabaseBusy:
            return  # the next run does it
        except BridgeError as error:
            self._emit(database_trouble(error))

    def _prune(self) -> None:
        pruned = 0
        while not self.stopping.is_set() and (count := self._upkeep.prune(self._retention_days, PRUNE_BATCH)):
            pruned += count
        if pruned:
            self._emit(Pruned(pruned))

    def _close_minutes(self) -> None:
        while not self.stopping.is_set() and self._upkeep.close_minutes(MINUTES_BATCH) == MINUTES_BATCH:
            pass
