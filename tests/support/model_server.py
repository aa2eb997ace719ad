"""A model's server on this machine: real HTTP of the chat/completions protocol, with every misbehaviour on request.

with ModelServer() as server:
    server.says("salut")
    server.next(status(429, {"Retry-After": "4"}), says("coucou"))
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

CLOSED_SECONDS: Final = 10.0


@dataclass
class Call:
    """One request: what it asked, and whether the client has hung up on it."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    began: float = field(default_factory=time.monotonic)
    closed: threading.Event = field(default_factory=threading.Event)

    @property
    def messages(self) -> list[dict[str, str]]:
        """What the model was told."""
        told: list[dict[str, str]] = self.body["messages"]
        return told

    def said_by(self, role: str) -> list[str]:
        """Return the contents of one role, in order."""
        return [message["content"] for message in self.messages if message["role"] == role]


class Handler(BaseHTTPRequestHandler):
    """One connection to the server."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        """Note the call and do what is next."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        call = Call(self.path, dict(self.headers), json.loads(content))
        act = self.server.owner.note(call)
        try:
            act(self, call)
        except OSError:
            call.closed.set()

    def do_GET(self) -> None:
        """Note where a redirect led."""
        self.server.owner.redirected.append(self.path)
        self.send_error(404)

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def send(self, body: bytes, code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole answer."""
        self.send_response(code)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def hangs_up(self, call: Call, seconds: float) -> bool:
        """Wait until the client closes the connection, for some seconds."""
        self.connection.settimeout(seconds)
        try:
            closed = not self.connection.recv(1)
        except TimeoutError:
            return False
        except OSError:
            closed = True
        if closed:
            call.closed.set()
            self.close_connection = True
        return closed


Act: TypeAlias = "Callable[[Handler, Call], None]"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    owner: ModelServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up."""


class ModelServer:
    """Serves until the block is left, and counts calls and tokens by itself."""

    def __init__(self) -> None:
        self._http = _Server(("127.0.0.1", 0), Handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._changed = threading.Condition()
        self._next: deque[Act] = deque()
        self._default: Act = says("Oui, bien sûr.")
        self.calls: list[Call] = []
        self.redirected: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        """What OPENAI_BASE_URL has to be."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def tokens(self) -> int:
        """How many tokens all calls have sent, at most: the UTF-8 bytes of what the model was told / 3."""
        contents = [message["content"] for call in self.calls for message in call.messages]
        return sum(len(text.encode()) // 3 for text in contents)

    def says(self, text: str) -> None:
        """Answer with this text from now on."""
        self._default = says(text)

    def does(self, act: Act) -> None:
        """Do this from now on."""
        self._default = act

    def next(self, *acts: Act) -> None:
        """Do these first, one a call."""
        self._next.extend(acts)

    def note(self, call: Call) -> Act:
        """Count a call and return what to do with it."""
        with self._changed:
            self.calls.append(call)
            self._changed.notify_all()
            return self._next.popleft() if self._next else self._default

    def wait_for_call(self, count: int = 1, timeout: float = CLOSED_SECONDS) -> Call:
        """Return a call as soon as it has come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.calls) >= count, timeout), f"{len(self.calls)} calls"
            return self.calls[count - 1]


def completion(content: object, *, finish: str = "stop", usage: object = None, **message: object) -> dict[str, Any]:
    """Return an answer of the protocol."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "local",
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
        ],
        "usage": usage or {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def group_of(messages: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the contents of the group, which a model is told last, after the clock."""
    told = [message["content"] if message["role"] == "user" else None for message in messages]
    return [text for text in told[len(told) - [*told[::-1], None].index(None) :] if text is not None]


def answers(document: object) -> Act:
    """Answer with this document as JSON."""
    return lambda handler, _: handler.send(json.dumps(document).encode())


def says(content: object, **changes: Any) -> Act:  # noqa: ANN401 - what `completion` takes
    """Answer with this text."""
    return answers(completion(content, **changes))


def sends(body: bytes, headers: Mapping[str, str] | None = None) -> Act:
    """Answer with these bytes."""
    return lambda handler, _: handler.send(body, headers=headers)


def status(code: int, headers: Mapping[str, str] | None = None, body: bytes = b"{}") -> Act:
    """Answer with a status."""
    return lambda handler, _: handler.send(body, code, headers)


def echoes_everything(code: int) -> Act:
    """Answer with a status, and quote the whole request in the error."""
    return lambda handler, call: handler.send(json.dumps({"error": {"message": str(call.body)}}).encode(), code)


def slow(seconds: float, then: Act) -> Act:
    """Take some time, unless the client hangs up."""

    def act(handler: Handler, call: Call) -> None:
        if not handler.hangs_up(call, seconds):
            then(handler, call)

    return act


def held(may_answer: threading.Event, then: Act) -> Act:
    """Wait until it may answer, unless the client hangs up."""

    def act(handler: Handler, call: Call) -> None:
        while not may_answer.is_set():
            if handler.hangs_up(call, 0.05):
                return
        then(handler, call)

    return act


def drips(seconds: float) -> Act:
    """Send a space every 50 ms and no answer: each byte comes in time."""

    def act(handler: Handler, call: Call) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not handler.hangs_up(call, 0.05):
            handler.wfile.write(b" ")
        handler.close_connection = True

    return act


def half_closed(sent: bytes) -> Act:
    """Promise more than is sent, and close this side of the connection."""

    def act(handler: Handler, call: Call) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(sent) + 100))
        handler.end_headers()
        handler.wfile.write(sent)
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_WR)
        handler.hangs_up(call, CLOSED_SECONDS)
        handler.close_connection = True

    return act


def babbles(sent: bytes) -> Act:
    """Send these bytes, which are no HTTP, and close the connection."""

    def act(handler: Handler, call: Call) -> None:
        del call
        handler.wfile.write(sent)
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True

    return act


def floods(size: int, code: int = 200, *, counted: list[int] | None = None) -> Act:
    """Send so many bytes of one long JSON text, in chunks without a length; note how many the client took."""

    def act(handler: Handler, call: Call) -> None:
        del call
        handler.send_response(code)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        chunk = b"x" * 65536
        head = b'{"choices":[{"message":{"content":"'
        handler.wfile.write(f"{len(head):x}\r\n".encode() + head + b"\r\n")
        sent = 0
        try:
            while sent < size:
                handler.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                sent += len(chunk)
            tail = b'"}}]}'
            handler.wfile.write(f"{len(tail):x}\r\n".encode() + tail + b"\r\n0\r\n\r\n")
        finally:
            handler.close_connection = True
            if counted is not None:
                counted.append(sent)

    return act
