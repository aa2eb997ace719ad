"""The console: pages for people, beside the three paths of every port."""

import logging
import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final

import redis
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from starlette.routing import Route
from starlette.types import ASGIApp

from bridge_service.errors import BridgeError
from bridge_service.machine.database import Database
from bridge_service.telemetry.metrics import show_build
from bridge_service.web import probes
from bridge_service.web.actions import Actions
from bridge_service.web.books import Books
from bridge_service.web.forms import csrf_token
from bridge_service.web.numbers import BridgeCollector
from bridge_service.web.observer import Observer
from bridge_service.web.server import listen, make_server
from bridge_service.web.templates import STATIC
from bridge_service.web.views import Views

_logger: Final = logging.getLogger("bridge.console")


class Console:
    """The console as an ASGI application, in `app`.

    Parameters:
      token: what a visitor has to bring for everything except the probes; None for nothing.
      csrf: what the pages send with each action. None makes it of the token, and without a token there is no action.
      root: what stands before the paths of the pages.
      pages: what is served beside them, with the files that they load.
      within: see probes.make_app.
    """

    def __init__(
        self,
        database: Database,
        client: redis.Redis,
        token: str | None,
        *,
        csrf: str | None = None,
        root: str = "",
        pages: Sequence[Route] = (STATIC,),
        within: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    ) -> None:
        own = CollectorRegistry()
        show_build(own)
        ProcessCollector(registry=own)
        observer, books = Observer(database, client), Books(database)
        if csrf is None and token is not None:
            csrf = csrf_token(token)
        self._views = Views(observer, books, root, csrf)
        actions = [] if csrf is None else Actions(books, self._views, csrf).routes()

        async def ready() -> list[str]:
            return (await observer.look()).missing

        async def numbers() -> bytes:
            return generate_latest(BridgeCollector(await observer.look())) + generate_latest(own)

        every = [*self._views.routes(), *actions, *pages]
        self.app = probes.make_app(live=list, ready=ready, numbers=numbers, token=token, pages=every, within=within)

    def stop(self) -> None:
        """End the streams of the open pages; from any thread."""
        self._views.stop()


def serve(console: Console, host: str, port: int) -> None:
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
    server = make_server(console.app)

    # After draining, uvicorn raises the signal again. The default handler would then end the process with an error.
    def end(number: int, frame: FrameType | None) -> None:
        console.stop()
        server.handle_exit(number, frame)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    _logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    server.run(sockets=[listening])
