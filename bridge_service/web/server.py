"""The web server of the console and of every HEALTH_PORT: uvicorn, with bounds for each visitor."""

import asyncio
import contextlib
import socket
from typing import Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from bridge_service.web.guard import HEADERS

CONNECTIONS_AT_ONCE: Final = 100
"""The server closes further connections: each one takes a file descriptor that the service may need."""

REQUEST_SECONDS: Final = 5
"""How long a visitor may take to send a request, and how long to read the answer."""

DRAIN_SECONDS: Final = 5

_GARBLED: Final = b"bad request\n"


def make_server(app: ASGIApp) -> uvicorn.Server:
    """Return the server of an application; its `run` takes what `listen` returns."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,  # the process has set up its logs
            log_level="critical",  # guard.py logs our own errors; a visitor's malformed request is no line
            access_log=False,
            http=Visitor,
            loop="asyncio",
            ws="none",
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            backlog=CONNECTIONS_AT_ONCE,  # asyncio accepts as many at a time
            timeout_keep_alive=REQUEST_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; on `::` also for IPv4.

    Raises:
      OSError: the address cannot be listened on.
    """
    if ":" not in host:
        return socket.create_server((host, port))
    return socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=socket.has_dualstack_ipv6())


class Visitor(H11Protocol):
    """A connection with a time limit. uvicorn's own waits without one for a request and for the answer to be read."""

    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Close the connection above CONNECTIONS_AT_ONCE; else give the visitor REQUEST_SECONDS to ask."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_AT_ONCE:
            transport.abort()
        self.timeout_keep_alive_task = self._hang_up_later()

    def data_received(self, data: bytes) -> None:
        """Read on. Only a whole request ends the time limit, in `handle_events`."""
        self.conn.receive_data(data)
        self.handle_events()

    def on_response_complete(self) -> None:
        """Wait for the next request; if the connection closes, give the visitor REQUEST_SECONDS to read the answer."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._hang_up_later()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection. uvicorn's own handler waits first until the visitor has read its answers."""
        self.transport.abort()

    def pause_writing(self) -> None:
        """Give the visitor REQUEST_SECONDS to read what is buffered."""
        super().pause_writing()
        self._stalled = self._hang_up_later()

    def resume_writing(self) -> None:
        """Go on: the visitor reads its answer."""
        if self._stalled is not None:
            self._stalled.cancel()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request with HEADERS, and repeat nothing of it."""
        del msg
        headers = {
            **HEADERS,
            "Connection": "close",
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(_GARBLED)),
        }
        with contextlib.suppress(h11.LocalProtocolError):  # another answer is under way
            for event in (
                h11.Response(status_code=400, headers=[*headers.items()], reason=b"Bad Request"),
                h11.Data(data=_GARBLED),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        self._hang_up_later()

    def _hang_up_later(self) -> asyncio.TimerHandle:
        return self.loop.call_later(REQUEST_SECONDS, self.transport.abort)
