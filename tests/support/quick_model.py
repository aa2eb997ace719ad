"""`python -m tests.support.quick_model SECONDS`: a model's server of its own process, for thousands of calls at once.

It takes SECONDS for each call, or as many as the last message that it is told begins with (`20 s: ...`), and answers
with the group. It prints its address, and tells at /calls what came of each call.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests.support.model_server import completion, group_of

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKLOG: Final = 4096
_SECONDS: Final = re.compile(r"(\d+(?:\.\d+)?) s\b")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class Asked(NamedTuple):
    """What came of a call; times as of time.time(). `ended`: None while it is under way; `closed`: by the client."""

    text: str
    began: float
    ended: float | None = None
    closed: bool = False


class _Connection(asyncio.Protocol):
    def __init__(self, seconds: float, calls: list[Asked]) -> None:
        self._seconds = seconds
        self._calls = calls
        self._received = b""
        self._under_way: tuple[int, asyncio.TimerHandle] | None = None

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - a transport that writes
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        told = _LENGTH.search(head + b"\r\n")
        length = int(told[1]) if told else 0
        if len(rest) < length:
            return
        self._received = rest[length:]
        if head.startswith(b"GET"):
            self._send(json.dumps(self._calls).encode())
            return
        text = "\n".join(group_of(json.loads(rest[:length])["messages"]))
        number = len(self._calls)
        self._calls.append(Asked(text, time.time()))
        seconds = float(said[1]) if (said := _SECONDS.match(text.rpartition("\n")[2])) else self._seconds
        self._under_way = number, asyncio.get_running_loop().call_later(seconds, self._answer, text)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._under_way is not None:
            self._under_way[1].cancel()
            self._over(closed=True)

    def _answer(self, text: str) -> None:
        self._over(closed=False)
        self._send(json.dumps(completion(text)).encode())

    def _over(self, *, closed: bool) -> None:
        assert self._under_way is not None
        number, _ = self._under_way
        self._under_way = None
        self._calls[number] = self._calls[number]._replace(ended=time.time(), closed=closed)

    def _send(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)


async def _serve(seconds: float) -> None:
    calls: list[Asked] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(seconds, calls), "127.0.0.1", 0, backlog=BACKLOG)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


class QuickModel:
    """The server, from another process. `url`: what OPENAI_BASE_URL has to be."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.url = f"{address}/v1"

    @property
    def calls(self) -> list[Asked]:
        """What came of each call, in their order."""
        with urllib.request.urlopen(f"{self._address}/calls") as answer:  # noqa: S310 - our own address
            return [Asked(*each) for each in json.load(answer)]


@contextmanager
def quick_model(seconds: float) -> Iterator[QuickModel]:
    """Run the server while the block runs."""
    with running("tests.support.quick_model", f"{seconds:g}") as address:
        yield QuickModel(address)


@contextmanager
def running(module: str, *arguments: str) -> Iterator[str]:
    """Run a server's module in a process of its own; give the line that it prints once it listens."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))
