"""How a process begins: it says how it is set up, and waits for what it needs instead of crashing until it is there."""

import threading
from collections.abc import Callable
from typing import Final

from dramatiq.errors import ConnectionClosed

from bridge_service.broker import WaitingBroker, describe
from bridge_service.database import Database
from bridge_service.errors import DatabaseRefused, DatabaseUnavailable, SchemaMissing
from bridge_service.events import (
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
from bridge_service.settings import Settings, is_open, plaintext, summary

RETRY_SECONDS: Final = 1.0


def announce(settings: Settings, role: str, emit: Emit, *, serves: str | None) -> None:
    """Tell with which settings a process starts, and which of them let others read along.

    Parameters:
      role: `scheduler`, `worker` or `console`.
      serves: the variable that holds the port on which it shows pages; None if it shows none.
    """
    emit(ProcessStarted(summary(settings), role))
    for variable in plaintext(settings):
        emit(PlaintextUrl(variable))
    if serves is not None and is_open(settings):
        emit(PagesOpen(serves))


def wait_for_postgres(database: Database, emit: Emit, stopping: threading.Event) -> bool:
    """Return True once PostgreSQL answers and schema `bridge` is there; False if told to stop first."""

    def connect() -> bool:
        try:
            database.call("SELECT 1")
        except (DatabaseUnavailable, DatabaseRefused) as error:
            emit(WaitingForPostgres(str(error)))
            return False
        emit(PostgresConnected())
        return True

    def find_schema() -> bool:
        try:
            database.call("SELECT bridge.triggers_installed()")
        except SchemaMissing:
            emit(SchemaAbsent())
            return False
        except (DatabaseUnavailable, DatabaseRefused) as error:
            emit(WaitingForPostgres(str(error)))
            return False
        return True

    return _until(connect, stopping) and _until(find_schema, stopping)


def wait_for_redis(broker: WaitingBroker, emit: Emit, stopping: threading.Event) -> bool:
    """Return True once Redis takes what a push writes; False if told to stop first."""

    def connect() -> bool:
        try:
            broker.probe()
        except ConnectionClosed as error:
            broker.drop_connections()
            emit(WaitingForRedis(describe(error)))
            return False
        emit(RedisConnected())
        return True

    return _until(connect, stopping)


def _until(holds: Callable[[], bool], stopping: threading.Event) -> bool:
    while not holds():
        if stopping.wait(RETRY_SECONDS):
            return False
    return not stopping.is_set()
