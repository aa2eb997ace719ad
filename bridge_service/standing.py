"""How PostgreSQL and Redis stand, in the words of `status` and of the console."""

from typing import Final

import redis
from dramatiq.errors import ConnectionClosed

from bridge_service.errors import DatabaseRefused, DatabaseUnavailable, SchemaMissing
from bridge_service.redis_client import redis_call

OK: Final = "ok"
DOWN: Final = "down"
REFUSED: Final = "refused"
NO_SCHEMA: Final = "no schema"


def of_postgresql(error: DatabaseUnavailable | SchemaMissing | DatabaseRefused) -> str:
    """Return the word for what a call met: DOWN, NO_SCHEMA or REFUSED."""
    match error:
        case DatabaseUnavailable():
            return DOWN
        case SchemaMissing():
            return NO_SCHEMA
        case _:
            return REFUSED


def of_redis(client: redis.Redis) -> str:
    """Ask Redis: OK, REFUSED if it lets nobody in, else DOWN, also where what answers talks nonsense."""
    try:
        redis_call(client.ping)
    except ConnectionClosed as closed:
        return REFUSED if isinstance(closed.args[0], (redis.AuthenticationError, redis.ResponseError)) else DOWN
    return OK
