"""The connections to the model's server, in several pools: a pool looks at each of its connections in every request."""

import urllib.request
from typing import Final

import httpx2

POOLS: Final = 20
"""Of 200 requests in one pool, each looked at 200 connections as it began and as it ended: a third of a call's CPU."""


class Pools(httpx2.AsyncBaseTransport):
    """Sends each request through the pool with the fewest requests under way, so a lone call finds its connection."""

    def __init__(self, limits: httpx2.Limits, *, trust_env: bool) -> None:
        """Make the pools; they connect when they are used.

        Parameters:
          limits: of each pool.
        """
        verify = httpx2.create_ssl_context(trust_env=trust_env)
        self._pools = [
            httpx2.AsyncHTTPTransport(verify=verify, trust_env=trust_env, limits=limits) for _ in range(POOLS)
        ]
        self._busy = [0] * POOLS

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, and return its response once the headers are there."""
        place = self._busy.index(min(self._busy))
        self._busy[place] += 1
        try:
            return await self._pools[place].handle_async_request(request)
        finally:
            self._busy[place] -= 1  # what is left is to read the answer: a moment

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools:
            await pool.aclose()


def pools(idle: int, *, trust_env: bool) -> httpx2.AsyncBaseTransport | None:
    """Return the pools; None if the environment names a proxy, for which httpx2 makes a pool of its own.

    Parameters:
      idle: connections that are kept for the next calls, in all pools together.
    """
    if trust_env and urllib.request.getproxies():
        return None
    return Pools(httpx2.Limits(max_keepalive_connections=idle // POOLS), trust_env=trust_env)
