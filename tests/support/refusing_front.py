"""A front of PostgreSQL, as managed services put there, that refuses start-up options in its own way."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress
from threading import Event, Thread
from typing import Self

_ENCRYPTION_REQUESTS = {80877103, 80877104}
_REST = 8


def error(severity: str | None, state: str, words: str) -> bytes:
    """Return an ErrorResponse of PostgreSQL's protocol; some fronts leave out the severity."""
    fields = [b"C" + state.encode(), b"M" + words.encode()]
    if severity is not None:
        fields.insert(0, b"S" + severity.encode())
    body = b"".join(field + b"\0" for field in fields) + b"\0"
    return b"E" + (len(body) + 4).to_bytes(4, "big") + body


class RefusingFront:
    """A port before a PostgreSQL on this machine, on a thread of its own.

    Parameters:
      behind: the server's port.
      refusal: what is answered to a start with options, before the connection is closed.
    """

    def __init__(self, behind: int, refusal: bytes) -> None:
        self.port = 0
        self.refused = 0
        self.let_through = 0
        self._behind = behind
        self._refusal = refusal
        self._ready = Event()
        self._thread = Thread(target=lambda: asyncio.run(self._serve()), name="front", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(5)

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._ended.wait()
        server.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError), closing(writer):
            while True:
                head = await reader.readexactly(_REST)
                if int.from_bytes(head[4:], "big") not in _ENCRYPTION_REQUESTS:
                    break
                writer.write(b"N")
            parameters = await reader.readexactly(int.from_bytes(head[:4], "big") - _REST)
            if b"\0options\0" in b"\0" + parameters:
                self.refused += 1
                writer.write(self._refusal)
                await writer.drain()
                return
            self.let_through += 1
            there, server = await asyncio.open_connection("127.0.0.1", self._behind)
            with closing(server):
                server.write(head + parameters)
                ways = [asyncio.create_task(_pass_on(reader, server)), asyncio.create_task(_pass_on(there, writer))]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
