"""Asking a server on this machine, as a probe or a browser does."""

from __future__ import annotations

import base64
import http.client
import socket
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from email.message import Message


class Answer(NamedTuple):
    """What a server said."""

    status: int
    headers: Message
    body: str


def ask(port: int, path: str, method: str = "GET", authorization: str | None = None) -> Answer:
    """Make one request and return the answer, whatever its status.

    Parameters:
      authorization: the header of that name, if any.

    Raises:
      OSError: nobody listens there.
    """
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request(method, path, headers={} if authorization is None else {"Authorization": authorization})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read().decode())


def basic(password: str, user: str = "prometheus") -> str:
    """Return the header with which a browser, or Prometheus, brings a password."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def free_port() -> int:
    """Return a port on which nobody listens just now."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        return int(listening.getsockname()[1])


def samples(exposition: str) -> dict[str, float]:
    """Return the values of what /metrics says, by the whole name of the series."""
    lines = (line.rpartition(" ") for line in exposition.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def hangs_up(connection: socket.socket, sent: bytes = b"") -> bool:
    """Send something more, and tell whether the other side has hung up without a word."""
    connection.settimeout(0.01)
    try:
        connection.sendall(sent)
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True
