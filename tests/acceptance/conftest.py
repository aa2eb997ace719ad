"""What acceptance tests share: the service on a fresh, migrated database and an empty Redis, and the app beside it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from bridge_service.demo.servers import RedisServer
from tests.support.app import App
from tests.support.service import QUICK, Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from tests.support.roles import Urls


@pytest.fixture
def service(bridge_database: Urls, redis_server: RedisServer, redis_client: redis.Redis) -> Iterator[Service]:
    """Give a service of which nothing runs yet."""
    del redis_client  # only asked for because it empties Redis
    urls = {"DATABASE_URL": bridge_database.service, "REDIS_URL": redis_server.url()}
    # Tests that need an open group for a while make it longer.
    with Service({**QUICK, "GROUPING_DELAY": "0.2", **urls}) as service:
        yield service


@pytest.fixture
def app(bridge_database: Urls) -> Iterator[App]:
    """Give the app on the service's database."""
    with closing(App(bridge_database)) as app:
        yield app


@pytest.fixture
def mortal_redis(service: Service, servers_folder: Path) -> Iterator[RedisServer]:
    """Give a Redis of the test's own, not started yet, and make the service use it."""
    server = RedisServer(servers_folder / "mortal_redis")
    service.environment["REDIS_URL"] = server.url()
    yield server
    server.stop()
