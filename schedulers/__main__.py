"""`python -m schedulers`: wires the scheduler, starts it, waits for a signal, stops it."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector

from bridge_service.brokers.broker import WaitingBroker
from bridge_service.brokers.circuit import Reconnect
from bridge_service.brokers.queue_id import QueueId
from bridge_service.brokers.redis_client import connect
from bridge_service.checks import standing
from bridge_service.errors import EX_CONFIG, ConfigurationError, type_of
from bridge_service.machine.database import Connection, Database
from bridge_service.machine.steps import Grouped, Store
from bridge_service.process.heartbeat import Heartbeat
from bridge_service.process.incidents import Incidents
from bridge_service.process.startup import (
    announce,
    look_at_postgresql,
    wait_for_postgres,
    wait_for_redis,
    write_environment,
)
from bridge_service.process.watchdog import Watchdog
from bridge_service.settings import Settings, policy, secrets
from bridge_service.telemetry import logs
from bridge_service.telemetry.journal import Journal
from bridge_service.telemetry.metrics import Metrics
from bridge_service.telemetry.signals import Draining, Emit, FatalError, Stopped, fan_out
from bridge_service.web.health_port import LISTENER, HealthPort, stuck_loops
from schedulers.listener import Listener
from schedulers.planner import Planner
from schedulers.push import Pusher
from schedulers.window import ContextWindow

DRAIN_SECONDS: Final = 5.0
LAST_CALL_SECONDS: Final = 1.0
"""How long begun steps may take after a signal; then how long to wait for the window's last look, and for the rows that
the process writes about itself, while Redis or PostgreSQL does not answer. All in all it ends within 8 s."""

TICK_SECONDS: Final = 1.0

CONNECTIONS: Final = 7
"""To PostgreSQL, at most: one to listen, and for listener, planner, retention, heartbeat, incidents, /health/ready."""
EXIT_OK: Final = 0
EXIT_CRASH: Final = 1

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    """Run the scheduler until a signal; the exit code: 0 drained, 1 crashed, 78 wrong configuration."""
    try:
        settings = Settings.from_environ(os.environ)
    except ConfigurationError as error:
        for fault in error.faults:
            sys.stderr.write(f"❌ Erreur fatale: {logs.escape(fault)}\n")
        return EX_CONFIG
    # Before any thread starts, so that all of them inherit it and only the waiting one hears a signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    lines = logs.configure(settings.log_level, settings.log_format, secrets(settings), sys.stdout)
    journal = Journal(logging.getLogger("bridge"))
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    database = Database(lambda: Connection(settings.database_url, application="bridge scheduler"))
    store = Store(database)
    incidents = Incidents(store, "scheduler")
    heartbeat = Heartbeat(store, "scheduler", policy(settings, os.environ))
    emit = fan_out(journal, metrics, incidents)
    announce(settings, "scheduler", emit, serves=None if settings.health_port is None else "HEALTH_PORT")
    heartbeat.start()
    incidents.start()
    process = Process(emit)
    watchdog = Watchdog(emit)
    process.spawn("signals", _wait_for_signal(process))
    process.spawn("tick", _tick(journal, lines, metrics, watchdog, process.stopping))
    try:
        run(settings, database, store, emit, process, watchdog=watchdog, metrics=metrics, registry=registry)
    finally:
        for writer in (incidents, heartbeat):
            writer.stop(0)  # both at the same time
        end = time.monotonic() + LAST_CALL_SECONDS
        for writer in (incidents, heartbeat):
            writer.stop(max(0.0, end - time.monotonic()))
        database.close()
        emit(Stopped())
        journal.flush(everything=True)
    return EXIT_CRASH if process.crashed else EXIT_OK


class Process:
    """The process's threads: when one of them fails unexpectedly all stop, and the platform starts another process."""

    def __init__(self, emit: Emit) -> None:
        self.stopping = threading.Event()
        self.crashed = False
        self._emit = emit

    def spawn(self, name: str, target: Callable[[], None]) -> threading.Thread:
        """Run a thread whose failure ends the process: a deaf or idle one would be worse."""

        def guarded() -> None:
            try:
                target()
            except BaseException as error:  # SystemExit too: it would leave the thread dead and the process idle
                logging.getLogger("bridge").debug("thread %s failed", name, exc_info=True)
                self.crashed = True
                self._emit(FatalError(f"{type_of(error)} in {name}, {logs.place_of(error.__traceback__)}"))
            finally:
                if self.crashed:
                    self.stopping.set()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread


def run(
    settings: Settings,
    database: Database,
    store: Store,
    emit: Emit,
    process: Process,
    *,
    watchdog: Watchdog,
    metrics: Metrics,
    registry: CollectorRegistry,
) -> None:
    """Wire the parts, run them until told to stop, and stop them in reverse."""
    stopping = process.stopping
    reconnect = Reconnect(emit)
    broker = WaitingBroker(settings.broker_url, emit=emit, middleware=[reconnect], queue_id=QueueId(store.queue_id))
    listening = threading.Event()
    if settings.health_port is not None:
        ProcessCollector(registry=registry)
        metrics.listener(listening.is_set)
        HealthPort(
            settings.host,
            settings.health_port,
            live=lambda: stuck_loops(watchdog.ages()),
            ready=lambda: standing.missing_services(database, broker) + ([] if listening.is_set() else [LISTENER]),
            numbers=registry,
            token=settings.console_token,
        ).start()
    if not (
        wait_for_postgres(database, emit, stopping)
        and write_environment(store, policy(settings, os.environ), emit, stopping)
        and wait_for_redis(broker, emit, stopping)
    ):
        return
    threading.Thread(
        target=look_at_postgresql,
        args=(settings.database_url, emit, stopping),
        kwargs={"connections": CONNECTIONS},
        name="look",
        daemon=True,
    ).start()

    window = ContextWindow(connect(settings.redis_url))
    pusher = Pusher(
        store,
        broker,
        reconnect,
        window=window,
        emit=emit,
        stopping=stopping,
        attempts=settings.redis_max_attempts,
    )

    def on_grouped(events: list[Grouped]) -> None:
        window.show(events, datetime.now(UTC))  # before a push can close it
        planner.wake()

    planner = Planner(
        store,
        pusher,
        look=lambda: listener.look(),  # noqa: PLW0108 - the listener is made further down
        emit=emit,
        stopping=stopping,
        beat=watchdog.watch("planner"),
        retention_days=settings.retention_days,
    )
    listener = Listener(
        store,
        lambda: Connection(settings.database_url, application="bridge listener"),
        on_grouped=on_grouped,
        on_due=planner.wake,
        emit=emit,
        stopping=stopping,
        beat=watchdog.watch("listener"),
        listening=listening,
    )
    window.start()
    planner.start()
    watchdog.start()
    threads = [process.spawn("listener", listener.run), process.spawn("planner", planner.run)]

    stopping.wait()
    emit(Draining(DRAIN_SECONDS))
    watchdog.stop()
    listener.stop()
    planner.stop()
    end = time.monotonic() + DRAIN_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    window.stop(LAST_CALL_SECONDS)
    broker.close()


def _wait_for_signal(process: Process) -> Callable[[], None]:
    def wait() -> None:
        signal.sigwait(_SIGNALS)
        process.stopping.set()

    return wait


def _tick(
    journal: Journal, lines: logs.LineHandler, metrics: Metrics, watchdog: Watchdog, stopping: threading.Event
) -> Callable[[], None]:
    def tick() -> None:
        while not stopping.wait(TICK_SECONDS):
            journal.flush()
            lines.report_held_back()
            metrics.loops_turned(watchdog.ages(), time.time())

    return tick


if __name__ == "__main__":
    sys.exit(main())
