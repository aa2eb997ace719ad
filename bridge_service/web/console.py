"""The console: a page for people, beside the three paths of every port."""

import logging
import signal
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from bridge_service.errors import BridgeError
from bridge_service.telemetry.metrics import show_build
from bridge_service.web import probes
from bridge_service.web.numbers import BridgeCollector
from bridge_service.web.observer import Observer
from bridge_service.web.page import POLICY, render
from bridge_service.web.server import listen, make_server

_logger: Final = logging.getLogger("bridge.console")


def make_app(observer: Observer, token: str | None) -> ASGIApp:
    """Return the console as an ASGI application.

    Parameters:
      token: what a visitor has to bring for everything except the probes; None for nothing.
    """
    own = CollectorRegistry()
    show_build(own)
    ProcessCollector(registry=own)

    async def page(request: Request) -> Response:
        look = await observer.look()
        turns = await observer.latest_turns() if look.figures else ()
        refresh = request.query_params.get("refresh") != "off"
        return HTMLResponse(render(look, turns, refresh=refresh), headers={"Content-Security-Policy": POLICY})

    async def ready() -> list[str]:
        return (await observer.look()).missing

    async def numbers() -> bytes:
        return generate_latest(BridgeCollector(await observer.look())) + generate_latest(own)

    return probes.make_app(live=list, ready=ready, numbers=numbers, token=token, pages=[Route("/", page)])


def serve(app: ASGIApp, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
      BridgeError: the address cannot be listened on.
    """
    try:
        listening = listen(host, port)
    except OSError as error:
        raise BridgeError(
            f"HOST and PORT: {host} port {port} cannot be listened on ({error.strerror}): set another PORT"
        ) from None
    server = make_server(app)
    # After draining, uvicorn raises the signal again. The default handler would then end the process with an error.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    _logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    server.run(sockets=[listening])
