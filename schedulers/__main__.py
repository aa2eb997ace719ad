"""`python -m schedulers`: wires the scheduler, starts it, waits for a signal, stops it."""

import logging
import os
import sys
import threading
import time
from datetime import UTC, datetime
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector

from bridge_service.brokers.broker import WaitingBroker
from bridge_service.brokers.circuit import Reconnect
from bridge_service.brokers.queue_id import QueueId
from bridge_service.brokers.redis_client import connect
from bridge_service.checks import standing
from bridge_service.errors import EX_CONFIG, ConfigurationError
from bridge_service.machine.answers import Grouped
from bridge_service.machine.database import Connection, Database
from bridge_service.machine.steps import Store
from bridge_service.process.ending import Ending, Signals, block_signals, print_faults
from bridge_service.process.heartbeat import Heartbeat
from bridge_service.process.incidents import Incidents
from bridge_service.process.loop import Every, Loop, stop_all
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
from bridge_service.telemetry.signals import Draining, Stopped
from bridge_service.telemetry.throttle import fan_out
from bridge_service.web.health_port import LISTENER, HealthPort, stuck_loops
from schedulers.deliverer import Deliverer
from schedulers.indicator import Indicator
from schedulers.listener import Listener
from schedulers.planner import Planner
from schedulers.push import Pusher
from schedulers.window import ContextWindow

DRAIN_SECONDS: Final = 5.0
LAST_CALL_SECONDS: Final = 1.0
"""After a signal, steps that have begun get DRAIN_SECONDS. While Redis or PostgreSQL does not answer, the window and
the process's last rows get LAST_CALL_SECONDS each. So the process ends within 8 s."""

TICK_SECONDS: Final = 1.0

CONNECTIONS: Final = 8
"""To PostgreSQL, at most: one to listen, and for listener, planner, indicator, the two loops that deliver and
/health/ready. Retention, heartbeat and incidents share one.
"""

EXIT_OK: Final = 0
EXIT_CRASH: Final = 1


class Scheduler:
    """The parts of the process, wired; no part connects or starts before `run`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lines = logs.configure(settings.log_level, settings.log_format, secrets(settings), sys.stdout)
        self._journal = Journal(logging.getLogger("bridge"))
        self._registry = CollectorRegistry()
        self._metrics = Metrics(self._registry)

        def connect_to_postgres() -> Connection:
            return Connection(settings.database_url, application="bridge scheduler")

        self._database = Database(connect_to_postgres)
        self._upkeep_database = Database(connect_to_postgres, most=1)
        self._store = Store(self._database)
        upkeep = Store(self._upkeep_database)
        self._incidents = Incidents(upkeep, "scheduler")
        self._heartbeat = Heartbeat(upkeep, "scheduler", policy(settings, os.environ))
        self._emit = fan_out(self._journal, self._metrics, self._incidents)
        self._ending = Ending(self._emit)
        self._signals = Signals(self._ending.stopping)
        self._watchdog = Watchdog(self._emit)
        self._tick = Every("tick", TICK_SECONDS, self._on_tick)

        reconnect = Reconnect(self._emit)
        queue_id = QueueId(self._store.queue_id)
        self._broker = WaitingBroker(settings.broker_url, emit=self._emit, middleware=[reconnect], queue_id=queue_id)
        self._window = ContextWindow(connect(settings.redis_url))
        pusher = Pusher(
            self._store,
            self._broker,
            reconnect,
            on_pushed=self._window.close,
            emit=self._emit,
            stopping=self._ending.stopping,
            attempts=settings.redis_max_attempts,
        )
        self._planner = Planner(
            self._store,
            pusher,
            upkeep,
            look=self._look,
            emit=self._emit,
            retention_days=settings.retention_days,
        )
        self._deliverer = Deliverer(self._store, on_pushable=self._planner.wake, emit=self._emit)
        self._indicator = Indicator(self._store, emit=self._emit)
        self._listener = Listener(
            self._store,
            lambda: Connection(settings.database_url, application="bridge listener"),
            on_grouped=self._on_grouped,
            on_due=self._on_due,
            emit=self._emit,
        )
        for loop in (self._signals, self._tick, self._planner, self._listener, self._indicator, *self._deliverers):
            loop.crash = self._ending.crash

    @property
    def _deliverers(self) -> tuple[Loop, Loop]:
        return self._deliverer, self._deliverer.alone

    def run(self) -> int:
        """Run until a signal; the exit code: 0 drained, 1 crashed."""
        port = self._settings.health_port
        announce(self._settings, "scheduler", self._emit, serves=None if port is None else "HEALTH_PORT")
        for loop in (self._heartbeat, self._incidents, self._signals, self._tick):
            loop.start()
        try:
            if port is not None:
                self._serve_health(port)
            if self._wait_for_servers():
                self._work()
        finally:
            stop_all((self._tick, self._incidents, self._heartbeat), LAST_CALL_SECONDS)
            self._database.close()
            self._upkeep_database.close()
            self._emit(Stopped())
            self._journal.flush(everything=True)
        return EXIT_CRASH if self._ending.crashed else EXIT_OK

    def _work(self) -> None:
        # Kept when each loop starts: until then there is nothing that could stand still.
        working = (self._planner, self._listener, self._indicator, *self._deliverers)
        for loop in working:
            loop.beat = self._watchdog.watch(loop.name)
        for loop in (self._window, self._watchdog, *working):
            loop.start()
        self._ending.stopping.wait()
        self._emit(Draining(DRAIN_SECONDS))
        self._watchdog.stop(0)
        stop_all(working, DRAIN_SECONDS)
        self._window.stop(LAST_CALL_SECONDS)
        self._broker.close()

    def _wait_for_servers(self) -> bool:
        """Return True once PostgreSQL and Redis are there, False if told to stop first."""
        emit, stopping = self._emit, self._ending.stopping
        if not (
            wait_for_postgres(self._database, emit, stopping)
            and write_environment(self._store, policy(self._settings, os.environ), emit, stopping)
            and wait_for_redis(self._broker, emit, stopping)
        ):
            return False
        threading.Thread(
            target=look_at_postgresql,
            args=(self._settings.database_url, emit, stopping),
            kwargs={"connections": CONNECTIONS},
            name="look",
            daemon=True,
        ).start()
        return True

    def _serve_health(self, port: int) -> None:
        ProcessCollector(registry=self._registry)
        self._metrics.listener(self._listener.listening)
        HealthPort(
            self._settings.host,
            port,
            live=lambda: stuck_loops(self._watchdog.ages()),
            ready=self._missing,
            numbers=self._registry,
            token=self._settings.console_token,
        ).start()

    def _missing(self) -> list[str]:
        services = standing.missing_services(self._database, self._broker)
        return services if self._listener.listening() else [*services, LISTENER]

    def _on_grouped(self, events: list[Grouped]) -> None:
        self._window.show(events, datetime.now(UTC))  # before a push can delete the key
        self._planner.wake()

    def _on_due(self) -> None:
        self._planner.wake()
        self._deliverer.wake()
        self._indicator.wake()

    def _look(self) -> None:
        self._listener.look()

    def _on_tick(self) -> None:
        self._journal.flush()
        self._lines.report_held_back()
        self._metrics.loops_turned(self._watchdog.ages(), time.time())


def main() -> int:
    """Run the scheduler; the exit code: 0 drained, 1 crashed, 78 wrong configuration."""
    try:
        settings = Settings.from_environ(os.environ)
    except ConfigurationError as error:
        print_faults(error)
        return EX_CONFIG
    block_signals()  # before any thread starts
    return Scheduler(settings).run()


if __name__ == "__main__":
    sys.exit(main())
