"""A port before a server on this machine, as a proxy or an attacker would stand there."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import closing, suppress
from threading import Event, Thread
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl


class Front(ABC):
    """The port, served by a thread of its own.

    Parameters:
      behind: the server's port.
      context: TLS ends here, with this context.
    """

    def __init__(self, behind: int, context: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self._behind = behind
        self._context = context
        self._ready = Event()
        self._thread = Thread(target=lambda: asyncio.run(self._serve()), name="front", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(5)

    @abstractmethod
    async def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
        """Return what the server is told first; None to end the connection."""

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._ended.wait()
        server.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError), closing(writer):
            first = await self.begin(reader, writer)
            if first is None:
                return
            there, server = await asyncio.open_connection("127.0.0.1", self._behind)
            with closing(server):
                server.write(first)
                ways = [asyncio.create_task(_pass_on(reader, server)), asyncio.create_task(_pass_on(there, writer))]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
