"""What acceptance tests share: the service on a fresh, migrated database and an empty Redis, and the app beside it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.app import App
from tests.support.service import QUICK, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from bridge_service.demo.servers import RedisServer


@pytest.fixture
def service(bridge_database: str, redis_server: RedisServer, redis_client: redis.Redis) -> Iterator[Service]:
    """Give a service of which nothing runs yet."""
    del redis_client  # only asked for because it empties Redis
    with Service({"DATABASE_URL": bridge_database, "REDIS_URL": redis_server.url(), **QUICK}) as service:
        yield service


@pytest.fixture
def app(bridge_database: str) -> Iterator[App]:
    """Give the app on the service's database."""
    with closing(App(bridge_database)) as app:
        yield app
