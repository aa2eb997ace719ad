"""The routes of the console, and the server that carries them."""

import asyncio
import logging
import signal
import socket
from http import HTTPStatus
from typing import Final

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from bridge_service.errors import BridgeError
from bridge_service.metrics import show_build
from bridge_service.web import probes as health
from bridge_service.web.guard import CHALLENGE, REFUSAL, admits
from bridge_service.web.numbers import BridgeCollector
from bridge_service.web.observer import Observer
from bridge_service.web.page import POLICY, render

REQUESTS_AT_ONCE: Final = 100
IDLE_SECONDS: Final = 5
"""How long somebody may take to ask, the first time or again, however little comes at a time."""

DRAIN_SECONDS: Final = 5

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_logger: Final = logging.getLogger("bridge.console")


def make_app(observer: Observer, token: str | None) -> ASGIApp:
    """Return the console as an ASGI application.

    Parameters:
      token: what who asks for more than health has to bring; None for nothing.
    """
    registry = CollectorRegistry()
    registry.register(BridgeCollector(observer.look))
    show_build(registry)
    ProcessCollector(registry=registry)

    # Plain functions run on threads of their own; the one that must answer whatever hangs is a coroutine.
    def page(request: Request) -> Response:
        refresh = request.query_params.get("refresh") != "off"
        look = observer.look()
        turns = observer.latest_turns() if look.figures else ()
        return HTMLResponse(render(look, turns, refresh=refresh))

    async def live(_: Request) -> Response:
        return _plain(health.alive([]))

    def ready(_: Request) -> Response:
        return _plain(health.ready(observer.look().missing))

    def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    routes = [
        Route("/", page),
        Route("/health/live", live),
        Route("/health/ready", ready),
        Route("/metrics", metrics),
    ]
    return _Guarded(Starlette(routes=routes), token)


def serve(app: ASGIApp, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
      BridgeError: the address cannot be listened on.
    """
    listening = _listen(host, port)
    server = make_server(app)
    # When it has drained, uvicorn raises the signal again, and by default that would kill a process that ended well.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    _logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    server.run(sockets=[listening])


def make_server(app: ASGIApp) -> uvicorn.Server:
    """Return what serves the console, in bounds that no visitor can exceed."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,  # the process has set up its logs
            log_level="warning",
            access_log=False,
            http=_Hasty,
            ws="none",
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            limit_concurrency=REQUESTS_AT_ONCE,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise BridgeError(
            f"HOST and PORT: {host} port {port} cannot be listened on ({error.strerror}): set another PORT"
        ) from None


def _plain(answer: tuple[int, str]) -> Response:
    status, text = answer
    return PlainTextResponse(text, status)


class _Hasty(H11Protocol):
    """Hangs up on who does not ask in time; the stock protocol waits for ever for the first byte, and for the next."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        # The time runs on: a whole request ends it, in `handle_events`.
        self.conn.receive_data(data)
        self.handle_events()


class _Guarded:
    """Asks for the token, and adds to every answer, errors included, the headers that keep it harmless in a browser."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token
        self._refusal = PlainTextResponse(REFUSAL, HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": CHALLENGE})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        authorization = dict(scope["headers"]).get(b"authorization", b"")
        app = self._app if admits(self._token, scope["path"], authorization) else self._refusal
        await app(scope, receive, guarded)
