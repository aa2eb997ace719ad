"""The pools of connections to a model's server: few requests in each, and none that goes past a proxy."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import httpx2

from bridge_service.responders.openai.pools import POOLS, pools

if TYPE_CHECKING:
    import pytest

URL = "http://127.0.0.1:9/"


class _Asked:
    """Stands for each pool: answers once `together` requests are under way."""

    def __init__(self, together: int) -> None:
        self.pools: Counter[httpx2.AsyncHTTPTransport] = Counter()
        self._barrier = asyncio.Barrier(together)

    async def answer(self, pool: httpx2.AsyncHTTPTransport) -> httpx2.Response:
        self.pools[pool] += 1
        await self._barrier.wait()
        return httpx2.Response(200)


def _ask(monkeypatch: pytest.MonkeyPatch, together: int, rounds: int) -> list[int]:
    """Send `together` requests at once, `rounds` times; return how many each pool got that got any."""

    async def play() -> list[int]:
        asked = _Asked(together)

        async def handle(self: httpx2.AsyncHTTPTransport, request: httpx2.Request) -> httpx2.Response:
            del request
            return await asked.answer(self)

        monkeypatch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", handle)
        async with httpx2.AsyncClient(transport=pools(100, trust_env=False), trust_env=False) as client:
            for _ in range(rounds):
                await asyncio.gather(*(client.get(URL) for _ in range(together)))
        return list(asked.pools.values())

    return asyncio.run(play())


def test_calls_at_once_are_spread_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 calls that are under way at once each pool has ten."""
    assert _ask(monkeypatch, 10 * POOLS, 1) == [10] * POOLS


def test_calls_one_after_the_other_share_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that begins when none is under way goes to the pool whose connection is there already."""
    assert _ask(monkeypatch, 1, 5) == [5]


def test_a_proxy_of_the_environment_is_left_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the environment names a proxy and may name one, there are no pools of ours, which would go past it."""
    monkeypatch.setenv("HTTPS_PROXY", URL)
    assert pools(100, trust_env=True) is None
    assert pools(100, trust_env=False) is not None
