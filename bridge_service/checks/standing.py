"""Tells whether PostgreSQL, the bridge's schema and Redis are there. Every command and page uses these words."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import redis
from dramatiq.errors import ConnectionClosed

from bridge_service.brokers.broker import WaitingBroker
from bridge_service.brokers.redis_client import describe, redis_call
from bridge_service.errors import BridgeError, DatabaseBusy, DatabaseUnavailable, SchemaMissing
from bridge_service.machine.database import Database

OK: Final = "ok"
DOWN: Final = "down"
REFUSED: Final = "refused"
NO_SCHEMA: Final = "no schema"

DATABASE: Final = "database"
SCHEMA: Final = "schema"
REDIS: Final = "redis"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Standing:
    """How PostgreSQL or Redis stands.

    Attributes:
      word: OK, DOWN, REFUSED, or NO_SCHEMA of a PostgreSQL whose schema `bridge` is missing or too old.
      detail: what went wrong, without a secret; empty if OK.
    """

    word: str
    detail: str = ""


def ask_postgresql(ask: Callable[[], T]) -> tuple[Standing, T | None]:
    """Run `ask`, which calls a function of schema `bridge`; return how PostgreSQL stands, and the answer."""
    try:
        return Standing(OK), ask()
    except BridgeError as error:
        return Standing(word_for(error), str(error)), None


def of_postgresql(database: Database) -> Standing:
    """Ask PostgreSQL and the schema with one call."""
    return ask_postgresql(lambda: database.call("SELECT bridge.assert_complete()"))[0]


def word_for(error: BridgeError) -> str:
    """Return the word for the error of a call to PostgreSQL."""
    match error:
        case DatabaseUnavailable() | DatabaseBusy():
            return DOWN
        case SchemaMissing():
            return NO_SCHEMA
        case _:
            return REFUSED


def of_redis(ask: Callable[[], object]) -> Standing:
    """Run `ask`, which sends Redis a command. A server that speaks another protocol is DOWN."""
    try:
        redis_call(ask)
    except ConnectionClosed as closed:
        return Standing(word_for_redis(closed.args[0]), describe(closed))
    return Standing(OK)


def word_for_redis(error: Exception) -> str:
    """Return the word for the error of a command to Redis."""
    return REFUSED if isinstance(error, (redis.AuthenticationError, redis.ResponseError)) else DOWN


def missing(postgresql: Standing, redis: Standing) -> list[str]:
    """Return which of DATABASE, SCHEMA and REDIS is missing, as /health/ready says it."""
    found = []
    if postgresql.word != OK:
        found.append(SCHEMA if postgresql.word == NO_SCHEMA else DATABASE)
    if redis.word != OK:
        found.append(REDIS)
    return found


def missing_services(database: Database, broker: WaitingBroker) -> list[str]:
    """Ask PostgreSQL and Redis, with one call each; return which of DATABASE, SCHEMA and REDIS is missing."""
    return missing(of_postgresql(database), of_redis(broker.client.ping))
