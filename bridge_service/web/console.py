"""The console: a page for people, beside the three paths of every port."""

import logging
import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from bridge_service.errors import BridgeError
from bridge_service.telemetry.metrics import show_build
from bridge_service.web import probes
from bridge_service.web.feed import Feed
from bridge_service.web.numbers import BridgeCollector
from bridge_service.web.observer import LOOK_SECONDS, Observer
from bridge_service.web.page import REFRESH_SECONDS, context
from bridge_service.web.server import listen, make_server
from bridge_service.web.templates import LANGUAGES, STATIC, page, render

_logger: Final = logging.getLogger("bridge.console")


def make_app(
    observer: Observer,
    token: str | None,
    *,
    feed: Feed | None = None,
    path: str = "/",
    pages: Sequence[Route] = (STATIC,),
    within: Callable[[ASGIApp], ASGIApp] = lambda app: app,
) -> ASGIApp:
    """Return the console as an ASGI application.

    Parameters:
      token: what a visitor has to bring for everything except the probes; None for nothing.
      feed: what `live_feed` returns; made here if no caller has to stop it.
      path: where the console's page is.
      pages: what is served beside it, with the files that it loads.
      within: see probes.make_app.
    """
    own = CollectorRegistry()
    show_build(own)
    ProcessCollector(registry=own)

    shown = feed or live_feed(observer)
    live_path = f"{path.rstrip('/')}/live"

    async def show(request: Request) -> Response:
        refresh = request.query_params.get("refresh") != "off"
        values = await _context(observer)
        return page(request, "console.html", refresh=refresh, seconds=REFRESH_SECONDS, live=live_path, **values)

    async def live(_: Request) -> Response:
        return StreamingResponse(shown.frames(), media_type="text/event-stream")

    async def ready() -> list[str]:
        return (await observer.look()).missing

    async def numbers() -> bytes:
        return generate_latest(BridgeCollector(await observer.look())) + generate_latest(own)

    every = [Route(path, show), Route(live_path, live), *pages]
    return probes.make_app(live=list, ready=ready, numbers=numbers, token=token, pages=every, within=within)


def live_feed(observer: Observer) -> Feed:
    """Return what keeps the open pages up to date; stop it when the server ends."""

    async def look() -> dict[str, Any]:
        values = await _context(observer)
        pages = {code: render("console_body.html", code, **values) for code in LANGUAGES}
        titles = {code: render("console_title.html", code, **values).strip() for code in LANGUAGES}
        return {**pages, "titles": titles}

    return Feed(look, look, LOOK_SECONDS)


async def _context(observer: Observer) -> dict[str, Any]:
    look = await observer.look()
    if look.figures is None:
        return context(look, (), ())
    return context(look, await observer.latest_turns(), await observer.dead_turns() if look.figures.dead else ())


def serve(app: ASGIApp, host: str, port: int, stop: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Parameters:
      stop: called at the signal.

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
    def end(number: int, frame: FrameType | None) -> None:
        stop()
        server.handle_exit(number, frame)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    _logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    server.run(sockets=[listening])
