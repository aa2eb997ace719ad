"""Waiting for what a process needs, saying so, instead of crashing until it is there."""

import threading
from collections.abc import Callable
from typing import Final

from dramatiq.errors import ConnectionClosed

from bridge_service.broker import WaitingBroker, describe
from bridge_service.database import Database
from bridge_service.errors import DatabaseRefused, DatabaseUnavailable, SchemaMissing
from bridge_service.events import (
    Emit,
    PostgresConnected,
    RedisConnected,
    SchemaAbsent,
    WaitingForPostgres,
    WaitingForRedis,
)

RETRY_SECONDS: Final = 1.0


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
