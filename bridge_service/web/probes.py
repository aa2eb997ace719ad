"""The three paths of every port: /health/live, /health/ready and /metrics.

The answers are fixed words: no version, no host, nothing of a conversation. Liveness looks only at the process's own
loops. If it asked PostgreSQL, the platform would restart every process during an outage.
"""

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from bridge_service.web.guard import Guarded


def make_app(
    *,
    live: Callable[[], Sequence[str]],
    ready: Callable[[], Awaitable[Sequence[str]]],
    numbers: Callable[[], Awaitable[bytes]],
    token: str | None,
    pages: Sequence[Route] = (),
    within: Callable[[ASGIApp], ASGIApp] = lambda app: app,
) -> ASGIApp:
    """Return the three paths, and further pages, as an ASGI application.

    Parameters:
      live: returns the loops that stand still; must not wait for anything.
      ready: returns what is missing.
      numbers: returns what Prometheus reads.
      token: what a visitor has to bring for everything except the probes; None for nothing.
      within: returns what stands between the guard and the routes.
    """

    async def answer_live(_: Request) -> Response:
        return _probe("alive", "stuck", live())

    async def answer_ready(_: Request) -> Response:
        return _probe("ready", "not ready", await ready())

    async def answer_metrics(_: Request) -> Response:
        return Response(await numbers(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    routes = [
        *pages,
        Route("/health/live", answer_live),
        Route("/health/ready", answer_ready),
        Route("/metrics", answer_metrics),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refuse})
    app.router.redirect_slashes = False  # a redirect repeats the Host that was sent
    return Guarded(within(app), token)


def _probe(well: str, unwell: str, words: Sequence[str]) -> Response:
    if not words:
        return PlainTextResponse(f"{well}\n")
    return PlainTextResponse(f"{unwell}: {' '.join(words)}\n", HTTPStatus.SERVICE_UNAVAILABLE)


async def _refuse(_: Request, error: Exception) -> Response:
    """Say `not found` or `method not allowed`."""
    status = HTTPStatus(error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR)
    headers = error.headers if isinstance(error, HTTPException) else None
    return PlainTextResponse(f"{status.phrase.lower()}\n", status, headers)
