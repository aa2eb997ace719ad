"""How a process begins: it says how it is set up, waits for what it needs, and says what is amiss there."""

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
"""Of the looks: PlaintextUrl tells of the one, and the listener proves the other by itself."""


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
    connected = False

    def there() -> bool:
        nonlocal connected
        # Of the newest migrations: a schema that is too old is missing, too.
        found, _ = standing.ask_postgresql(lambda: database.call("SELECT bridge.assert_complete(), bridge.queue_id()"))
        if found.word != DOWN and not connected:
            connected = True
            emit(PostgresConnected())
        return _is_well(found, emit)

    return _until(there, stopping)


def _is_well(found: Standing, emit: Emit) -> bool:
    """Tell whether PostgreSQL did as it was asked, and say what it is that the process waits for."""
    if found.word == NO_SCHEMA:
        emit(SchemaAbsent())
    elif found.word != OK:
        emit(WaitingForPostgres(found.detail))
    return found.word == OK


def write_environment(store: Store, values: Mapping[str, float], emit: Emit, stopping: threading.Event) -> bool:
    """Return True once the policy's row of the environment stands in PostgreSQL; False if told to stop first.

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
        except BridgeError as error:  # PostgreSQL does not tell the name of the queue
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
    """Say what in PostgreSQL is not as the bridge needs it. It ends nothing, and no step waits for it.

    Parameters:
      connections: how many this process may still open.
      nothing_else: look at these only; another process looks at the rest.
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
