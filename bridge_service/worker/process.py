"""The worker process that `dramatiq bridge_service` runs: everything wired together, once.

Nothing here connects before a process boots, and a wrong environment is reported only then: importing the package is
always safe.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from multiprocessing import current_process
from typing import Final, NoReturn

from dramatiq import Broker, MessageProxy, Middleware, Worker
from dramatiq.errors import Retry
from dramatiq.middleware import Retries

from bridge_service.brokers.broker import WaitingBroker
from bridge_service.brokers.circuit import Reconnect
from bridge_service.brokers.dramatiq_fixes import boot_told, handle_once, orphaned
from bridge_service.brokers.queue_id import QueueId
from bridge_service.checks import standing
from bridge_service.errors import EX_CONFIG, BridgeError, ConfigurationError, DatabaseBusy
from bridge_service.machine.database import Connection, Database
from bridge_service.machine.steps import Store
from bridge_service.process.ending import print_faults
from bridge_service.process.heartbeat import Heartbeat
from bridge_service.process.incidents import Incidents
from bridge_service.process.loop import Every, stop_all
from bridge_service.process.startup import announce, look_at_postgresql, wait_for_postgres
from bridge_service.process.watchdog import Watchdog
from bridge_service.responders import NamedResponder, budget
from bridge_service.settings import Settings, policy, secrets
from bridge_service.telemetry import logs
from bridge_service.telemetry.journal import Journal
from bridge_service.telemetry.signals import Draining, Emit, ParentLost, Stopped, database_trouble
from bridge_service.telemetry.throttle import fan_out
from bridge_service.web.health_port import stuck_loops
from bridge_service.worker.actors import declare_actors
from bridge_service.worker.budget import StoredBudget
from bridge_service.worker.composer import Composer
from bridge_service.worker.leases import Leases
from bridge_service.worker.numbers import WorkerMetrics

DRAIN_SECONDS: Final = 5.0
"""How long begun turns may take after SIGTERM. Dramatiq notices the signal up to a second later, and the last call
takes `LAST_CALL_SECONDS`, so a process ends within 8 s."""

LAST_CALL_SECONDS: Final = 1.0
"""How long a process that ends waits for a PostgreSQL that does not answer. In this time it gives its turns back and
writes its last heartbeat and incidents, all at once."""

TICK_SECONDS: Final = 1.0

OWN_CONNECTIONS: Final = 5
"""Connections to PostgreSQL besides one a thread: leases, heartbeat, incidents, the queue's ID, /health/ready."""


def assemble(environ: Mapping[str, str]) -> WaitingBroker:
    """Make the broker with its actors and middleware from the environment.

    A wrong environment gives a broker whose worker ends with exit code 78 as it boots, naming the variables.
    """
    journal = Journal(logging.getLogger("bridge"))
    try:
        settings = Settings.from_environ(environ)
    except ConfigurationError as error:
        return WaitingBroker("redis://127.0.0.1", emit=journal, middleware=[RefuseToStart(error)], queue_id=str)

    database = Database(lambda: Connection(settings.database_url, application="bridge worker"))
    measure = WorkerMetrics(
        settings.host,
        settings.health_port,
        live=lambda: stuck_loops(watchdog.ages()),
        ready=lambda: standing.missing_services(database, broker),
        token=settings.console_token,
    )
    responder = NamedResponder(settings.responder)
    store = Store(database)
    incidents = Incidents(store, "worker")
    emit = fan_out(journal, measure, incidents)
    budget.use(StoredBudget(store, emit))
    watchdog = Watchdog(emit)
    leases = Leases(store, emit, responder_timeout=settings.responder_timeout)
    composer = Composer(
        store,
        leases,
        measure.timed(responder),
        emit,
    )
    broker = WaitingBroker(
        settings.broker_url,
        emit=emit,
        queue_id=QueueId(store.queue_id),
        middleware=[
            Reconnect(emit),
            Retries(max_retries=3, min_backoff=1000, max_backoff=4000),
            measure,  # above the process: Dramatiq calls the last one first, and the logs come before the port
            WorkerProcess(
                settings,
                database,
                leases,
                journal,
                emit=emit,
                watchdog=watchdog,
                measure=measure,
                heartbeat=Heartbeat(store, "worker", policy(settings, environ)),
                incidents=incidents,
            ),
            ImportResponder(responder),  # called first of all
        ],
    )
    declare_actors(broker, composer)
    return broker


class RefuseToStart(Middleware):
    """Ends a worker process whose configuration is wrong, with exit code 78 and a line for each fault."""

    def __init__(self, error: ConfigurationError) -> None:
        self._error = error

    def after_process_boot(self, broker: Broker) -> None:
        """End."""
        del broker
        _refuse(self._error)


class ImportResponder(Middleware):
    """Imports the responder's module as a worker process boots; no other process ever does."""

    def __init__(self, responder: NamedResponder) -> None:
        self._responder = responder

    def after_process_boot(self, broker: Broker) -> None:
        """Import it, or end with exit code 78 and a line that says why."""
        del broker
        try:
            self._responder.load()
        except ConfigurationError as error:
            _refuse(error)


def _refuse(error: ConfigurationError) -> NoReturn:
    """End this process; a line for each fault comes from the first one alone."""
    if current_process().name == "Process-1":
        print_faults(error)
    sys.exit(EX_CONFIG)


class WorkerProcess(Middleware):
    """What belongs to the process and not to a turn: logs, signals, leases, and draining within its time."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        leases: Leases,
        journal: Journal,
        *,
        emit: Emit,
        watchdog: Watchdog,
        measure: WorkerMetrics,
        heartbeat: Heartbeat,
        incidents: Incidents,
    ) -> None:
        self._settings = settings
        self._database = database
        self._leases = leases
        self._journal = journal
        self._emit = emit
        self._watchdog = watchdog
        self._measure = measure
        self._heartbeat = heartbeat
        self._incidents = incidents
        self._tick = Every("tick", TICK_SECONDS, self._on_tick)
        self._told_to_end_at: float | None = None
        self._stopping = threading.Event()
        self._drained = threading.Event()

    def after_process_boot(self, broker: Broker) -> None:
        """Set up the process; it is alone yet, Dramatiq starts its threads afterwards."""
        if isinstance(broker, WaitingBroker):
            broker.booted = boot_told()
        self._orphaned = orphaned()
        self._log_to(sys.stdout)
        for number in (signal.SIGTERM, signal.SIGHUP):
            handle_once(number, self._told_to_end)
        announce(self._settings, "worker", self._emit, serves="HEALTH_PORT" if self._measure.serves else None)
        self._heartbeat.start()
        self._incidents.start()
        self._leases.start()

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Watch the loops of consumer and leases, and that not every thread hangs in a responder."""
        self._leases.beat = self._watchdog.watch("leases")
        if isinstance(broker, WaitingBroker):
            broker.beat = self._watchdog.watch("consumer")
        self._threads = worker.worker_threads
        self._responders_beat = self._watchdog.watch("responders")
        self._watchdog.start()
        self._tick.start()
        threading.Thread(target=self._wait_and_look, name="postgresql", daemon=True).start()

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        """Tell of a PostgreSQL that is away; the message is tried again by Retries, and its turn by its due time."""
        del broker, message, result
        cause = exception.__cause__ if isinstance(exception, Retry) else None
        if isinstance(cause, BridgeError) and not isinstance(cause, DatabaseBusy):
            self._emit(database_trouble(cause))

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Stop fetching. What was begun has `DRAIN_SECONDS` to finish."""
        del worker
        self._told_to_end()
        self._stopping.set()
        self._tick.stop(0)
        self._watchdog.stop(0)
        self._emit(Draining(DRAIN_SECONDS))
        threading.Thread(target=self._end_in_time, name="drain", daemon=True).start()
        if isinstance(broker, WaitingBroker):
            broker.stop_waiting()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Every turn is finished or given back."""
        del broker, worker
        self._drained.set()
        self._finish()

    def _told_to_end(self) -> None:
        # At the signal itself: Dramatiq notices it up to a second later.
        if self._told_to_end_at is None:
            self._told_to_end_at = time.monotonic()

    def _end_in_time(self) -> None:
        begun = self._told_to_end_at or time.monotonic()
        if not self._drained.wait(max(0.0, begun + DRAIN_SECONDS - time.monotonic())):
            self._finish()
            sys.stdout.flush()
            # A responder that still runs cannot be stopped; its turn was given back, and its draft would be refused.
            os._exit(0)

    def _finish(self) -> None:
        # On threads: a PostgreSQL that never answers holds a call for many seconds.
        end = time.monotonic() + LAST_CALL_SECONDS
        last_call = threading.Thread(target=self._give_back, name="give back", daemon=True)
        last_call.start()
        stop_all((self._incidents, self._heartbeat), 0)
        last_call.join(LAST_CALL_SECONDS)
        self._leases.stop(0)
        self._emit(Stopped())
        self._journal.flush(everything=True)
        self._measure.close()
        stop_all((self._incidents, self._heartbeat), end - time.monotonic())
        self._database.close()

    def _give_back(self) -> None:
        with contextlib.suppress(BridgeError):  # the leases run out by themselves
            self._leases.release()

    def _wait_and_look(self) -> None:
        if wait_for_postgres(self._database, self._emit, self._stopping):
            # Dramatiq tells no process how many processes it starts, so each asks for those up to its own place.
            place = _place()
            look_at_postgresql(
                self._settings.database_url,
                self._emit,
                self._stopping,
                connections=place * (self._threads + OWN_CONNECTIONS),
                nothing_else=place > 1,
            )

    def _log_to(self, stream: logs.Stream) -> None:
        self._lines = logs.configure(
            self._settings.log_level, self._settings.log_format, secrets(self._settings), stream
        )

    def _on_tick(self) -> None:
        if self._orphaned():
            # Without a parent nothing ends this process, and nothing reads the pipe that its lines went into.
            self._tick.stop()
            self._log_to(sys.__stderr__ or sys.stdout)
            self._emit(ParentLost())
            os.kill(os.getpid(), signal.SIGTERM)
            return
        self._journal.flush()
        self._lines.report_held_back()
        if self._leases.hung() < self._threads:
            self._responders_beat()
        self._measure.loops_turned(self._watchdog.ages())


def _place() -> int:
    """Return the place of this process among those of its parent, from 1."""
    number = current_process().name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 1
