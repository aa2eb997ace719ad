"""How a process begins: it reports its settings, waits for PostgreSQL and Redis, and reports what is wrong there."""

import threading
from collections.abc import Callable, Mapping
from typing import Final

from bridge_service.brokers.broker import WaitingBroker
from bridge_service.checks import standing
from bridge_service.checks.postgresql import check_postgresql
from bridge_service.checks.standing import DOWN, NO_SCHEMA, OK, Standing
from bridge_service.errors import BridgeError
from bridge_service.machine.database import Database
from bridge_service.machine.steps import Store
from bridge_service.settings import Settings, is_open, plaintext, summary
from bridge_service.telemetry.signals import (
    CheckFailed,
    Emit,
    PagesOpen,
    PlaintextUrl,
    PostgresConnected,
    ProcessStarted,
    RedisConnected,
    SchemaAbsent,
    WaitingForPostgres,
    WaitingForRedis,
)

RETRY_SECONDS: Final = 1.0

_TOLD_ELSEWHERE: Final = frozenset({"postgresql_encryption", "listen"})
"""Checks left out here: PlaintextUrl reports the first, and the listener proves the second itself."""


def announce(settings: Settings, role: str, emit: Emit, *, serves: str | None) -> None:
    """Report the settings of a process, and which of them let others read what it sends or shows.

    Parameters:
      role: `scheduler`, `worker` or `console`.
      serves: the variable with the port of its pages; None if it has no pages.
    """
    emit(ProcessStarted(summary(settings), role))
    for variable in plaintext(settings):
        emit(PlaintextUrl(variable))
    if serves is not None and is_open(settings):
        emit(PagesOpen(serves))


def wait_for_postgres(database: Database, emit: Emit, stopping: threading.Event) -> bool:
    """Return True once PostgreSQL answers and schema `bridge` is there; False if told to stop first."""
    connected = False

    def there() -> bool:
        nonlocal connected
        # Functions of the newest migrations: a schema that is too old counts as missing.
        found, _ = standing.ask_postgresql(lambda: database.call("SELECT bridge.assert_complete(), bridge.queue_id()"))
        if found.word != DOWN and not connected:
            connected = True
            emit(PostgresConnected())
        return _is_well(found, emit)

    return _until(there, stopping)


def _is_well(found: Standing, emit: Emit) -> bool:
    """Return whether PostgreSQL answered well; otherwise report what the process waits for."""
    if found.word == NO_SCHEMA:
        emit(SchemaAbsent())
    elif found.word != OK:
        emit(WaitingForPostgres(found.detail))
    return found.word == OK


def write_environment(store: Store, values: Mapping[str, object], emit: Emit, stopping: threading.Event) -> bool:
    """Return True once the environment's row of policy stands in PostgreSQL; False if told to stop first.

    Parameters:
      values: what this process's environment sets, by column of bridge.bots.
    """
    return _until(lambda: _is_well(standing.ask_postgresql(lambda: store.set_environment(values))[0], emit), stopping)


def wait_for_redis(broker: WaitingBroker, emit: Emit, stopping: threading.Event) -> bool:
    """Return True once Redis takes what a push writes; False if told to stop first."""

    def probe() -> None:
        broker.probe()
        broker.expire_old_keys()

    def there() -> bool:
        try:
            found = standing.of_redis(probe)
        except BridgeError as error:  # from PostgreSQL, which holds the queue's ID
            emit(WaitingForPostgres(str(error)))
            return False
        if found.word != OK:
            broker.drop_connections()
            emit(WaitingForRedis(found.detail))
            return False
        emit(RedisConnected())
        return True

    return _until(there, stopping)


def look_at_postgresql(
    url: str, emit: Emit, stopping: threading.Event, *, connections: int, nothing_else: bool = False
) -> None:
    """Report what in PostgreSQL is not as the bridge needs it. Nothing ends because of it, and no step waits for it.

    Parameters:
      connections: how many this process may still open.
      nothing_else: check the connections only; another process checks the rest.
    """

    def wanted(name: str) -> bool:
        return name == "connections" or not (nothing_else or name in _TOLD_ELSEWHERE)

    for finding in check_postgresql(url, describe=str, wanted=wanted, connections=connections):
        if not finding.ok and not stopping.is_set():
            emit(CheckFailed(finding.name, finding.detail, finding.remedy))


def _until(holds: Callable[[], bool], stopping: threading.Event) -> bool:
    while not holds():
        if stopping.wait(RETRY_SECONDS):
            return False
    return not stopping.is_set()
