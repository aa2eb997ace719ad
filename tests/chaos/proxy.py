"""A TCP proxy whose weather can be changed: it passes, refuses, stalls, slows, cuts and garbles connections.

It runs an event loop in a thread of its own; every method may be called from any thread and returns once it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

CHUNK = 65536
CALL_SECONDS = 10.0

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Way(Enum):
    """The two directions of a connection."""

    REQUESTS = auto()
    ANSWERS = auto()


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to connections.

    Attributes:
      refuse: nobody listens: a new connection is refused at once.
      stalled: directions in which nothing moves. What was sent meanwhile arrives when the stall ends, as on a network.
      latency: seconds that each piece of data takes in each direction.
      rate: bytes a second in each direction; None: no limit.
      limits: bytes that a connection may still carry in a direction before it is reset, in the middle of a message.
      garble: makes something else of each piece of an answer.
    """

    refuse: bool = False
    stalled: frozenset[Way] = frozenset()
    latency: float = 0.0
    rate: float | None = None
    limits: dict[Way, int] = field(default_factory=dict)
    garble: Callable[[bytes], bytes] | None = None


FINE = Weather()
"""Everything passes."""


class Proxy:
    """Listens on a port of 127.0.0.1 and carries connections to another one.

    Parameters:
      port: where to listen; it stays the same over `refuse`.
      target: the port of 127.0.0.1 to connect to.
    """

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._weather = FINE
        self._links: set[_Link] = set()
        self._carriers: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Condition()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy {port}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_SECONDS)
        self._loop.close()

    def set(self, weather: Weather) -> None:
        """Change the weather, for the connections that are there and for new ones."""
        self._call(self._set(weather))

    def cut(self) -> None:
        """Reset every connection that is there."""
        self._call(self._each(_Link.reset))

    def half_close(self) -> None:
        """End the answers of every connection; what the client still sends goes on to the server."""
        self._call(self._each(_Link.end_answers))

    @property
    def connections(self) -> int:
        """How many connections are there."""
        return len(self._links)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    async def _listen(self) -> None:
        # Not asyncio's server: whom that has accepted while it is closed, it forgets with an open socket.
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.settimeout(0)
        self._loop.add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):  # who knocked has gone again
            client, _ = listener.accept()
            client.settimeout(0)
            carrier = self._loop.create_task(self._carry(client))
            self._carriers.add(carrier)
            carrier.add_done_callback(self._carriers.discard)
            carrier.add_done_callback(lambda _: client.close())  # if it was cancelled before it began

    async def _deafen(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _set(self, weather: Weather) -> None:
        self._weather = weather
        for link in self._links:
            link.carried = dict.fromkeys(Way, 0)
        if weather.refuse:
            await self._deafen()
        elif self._listener is None:
            await self._listen()
        async with self._changed:
            self._changed.notify_all()

    async def _each(self, action: Callable[[_Link], None]) -> None:
        for link in list(self._links):
            action(link)

    async def _close(self) -> None:
        await self._deafen()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # what was aborted is closed in the loop's next turn

    async def _carry(self, client: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=client, limit=CHUNK)
        link = _Link(writer)
        self._links.add(link)
        try:
            # A client that knocks during a stall is accepted, by the kernel as it were, and waits.
            await self._until_moving(Way.REQUESTS)
            answers, link.server = await asyncio.open_connection("127.0.0.1", self._target, limit=CHUNK)
            await asyncio.gather(
                self._pump(link, Way.REQUESTS, reader, link.server),
                self._pump(link, Way.ANSWERS, answers, writer),
            )
            await link.close()
        except (OSError, _CutShort, asyncio.CancelledError):  # nobody waits for this task
            link.reset()
        finally:
            self._links.discard(link)

    async def _pump(self, link: _Link, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self._until_moving(way)
            weather = self._weather
            if weather.latency:
                await asyncio.sleep(weather.latency)
            if weather.garble is not None and way is Way.ANSWERS:
                data = weather.garble(data)
            room = weather.limits.get(way, link.carried[way] + len(data)) - link.carried[way]
            link.carried[way] += len(data)
            if weather.rate is not None:
                await asyncio.sleep(len(data) / weather.rate)
            try:
                writer.write(data[: max(0, room)])
            except RuntimeError:  # this direction was ended by `half_close`
                return
            await writer.drain()
            if room < len(data):
                raise _CutShort
        with contextlib.suppress(OSError, RuntimeError):  # the other side may have ended this direction already
            writer.write_eof()

    async def _until_moving(self, way: Way) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: way not in self._weather.stalled)


class _CutShort(Exception):
    """The connection has carried what it might."""


class _Link:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.server: asyncio.StreamWriter | None = None
        self.carried = dict.fromkeys(Way, 0)

    def reset(self) -> None:
        """Close both sides so that they hear of it as an error (RST)."""
        for writer in self._both():
            raw = writer.get_extra_info("socket")
            if raw is not None and raw.fileno() >= 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()

    def end_answers(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self.client.write_eof()

    async def close(self) -> None:
        """Close both sides once they have taken what is on its way."""
        for writer in self._both():
            writer.close()
        for writer in self._both():
            await writer.wait_closed()

    def _both(self) -> list[asyncio.StreamWriter]:
        return [self.client] if self.server is None else [self.client, self.server]
