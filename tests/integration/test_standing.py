from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from bridge_service import standing
from bridge_service.redis_client import connect
from tests.chaos.proxy import FINE, Weather
from tests.support.weather import forgets_sockets, proxy_to

if TYPE_CHECKING:
    import redis

    from bridge_service.demo.servers import RedisServer


@forgets_sockets
@pytest.mark.parametrize("weather", [Weather(refuse=True), Weather(garble=lambda _: b"*1\r\n:7\r\n")])
def test_a_redis_that_is_away_or_talks_nonsense_is_down(redis_server: RedisServer, weather: Weather) -> None:
    """Also where redis-py stumbles over the reply in code of its own; and it is ok again afterwards."""
    with (
        proxy_to(redis_server.port) as proxy,
        closing(connect(f"redis://127.0.0.1:{proxy.port}/0", timeout=0.5)) as client,
    ):
        proxy.set(weather)
        assert standing.of_redis(client) == standing.DOWN
        proxy.set(FINE)
        client.connection_pool.disconnect()
        assert standing.of_redis(client) == standing.OK


def test_a_redis_that_wants_a_password_refuses(redis_server: RedisServer, redis_client: redis.Redis) -> None:
    """It is there, and lets nobody in."""
    redis_client.config_set("requirepass", "geheim")
    try:
        with closing(connect(redis_server.url())) as client:
            assert standing.of_redis(client) == standing.REFUSED
    finally:
        redis_client.config_set("requirepass", "")
