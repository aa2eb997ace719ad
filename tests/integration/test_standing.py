from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from bridge_service.brokers.redis_client import connect
from bridge_service.checks import standing
from bridge_service.checks.postgresql import check_postgresql
from bridge_service.checks.redis import check_redis
from tests.chaos.proxy import FINE, Weather
from tests.support.http import free_port
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
        assert standing.of_redis(client.ping).word == standing.DOWN
        proxy.set(FINE)
        client.connection_pool.disconnect()
        assert standing.of_redis(client.ping) == standing.Standing(standing.OK)


def test_a_redis_that_wants_a_password_refuses(redis_server: RedisServer, redis_client: redis.Redis) -> None:
    """Its word is `refused`, not `down`: it is there."""
    redis_client.config_set("requirepass", "geheim")
    try:
        with closing(connect(redis_server.url())) as client:
            assert standing.of_redis(client.ping).word == standing.REFUSED
    finally:
        redis_client.config_set("requirepass", "")


def test_check_speaks_the_same_words(redis_server: RedisServer, redis_client: redis.Redis) -> None:
    """The first lines of `check` begin with the word that `status`, the console and the page say."""
    nobody = f"127.0.0.1:{free_port()}"

    [postgresql] = check_postgresql(f"postgresql://{nobody}/app", describe=str)
    [away] = check_redis(f"redis://{nobody}/0", "redis", "REDIS_URL", describe=str)
    redis_client.config_set("requirepass", "geheim")
    try:
        [refused] = check_redis(redis_server.url(), "redis", "REDIS_URL", describe=str)
    finally:
        redis_client.config_set("requirepass", "")

    for finding, word in ((postgresql, standing.DOWN), (away, standing.DOWN), (refused, standing.REFUSED)):
        assert not finding.ok
        assert finding.detail.startswith(f"{word}: ")
