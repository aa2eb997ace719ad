"""Server-Sent Events: one look at a time, whatever the number of pages that show it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

State = Mapping[str, Any]

WAITING_FRAMES: Final = 100
"""A page that takes its frames more slowly is hung up on. Its browser connects again and gets the whole state."""

END_SECONDS: Final = 0.5
"""How often a stream without frames looks whether the server ends."""

SILENT_WAITS: Final = 30
"""So many of these waits without a frame are followed by a comment, which tells a page that left."""

RETRY: Final = "retry: 1000\n\n"

_logger: Final = logging.getLogger("bridge.web")


class Feed:
    """Sends each page the whole state first, and then each change; nothing looks while no page is open.

    Parameters:
      whole: returns all that a new page needs.
      look: returns what has changed, nothing if nothing has. A page may be told of a change that it was told before.
      seconds: between two looks.
    """

    def __init__(
        self, whole: Callable[[], Awaitable[State]], look: Callable[[], Awaitable[State]], seconds: float
    ) -> None:
        self._whole = whole
        self._look = look
        self._seconds = seconds
        self._pages: set[asyncio.Queue[str]] = set()
        self._pump: asyncio.Task[None] | None = None
        self._ended = False

    def stop(self) -> None:
        """End every stream; from any thread."""
        self._ended = True

    async def frames(self) -> AsyncIterator[str]:
        """Return the stream of one page."""
        page: asyncio.Queue[str] = asyncio.Queue(WAITING_FRAMES)
        self._pages.add(page)  # before the whole state is taken, so that no change falls between
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run())
        try:
            yield RETRY + _frame(await self._whole())
            waits = 0
            while page in self._pages and not self._ended:
                try:
                    yield await asyncio.wait_for(page.get(), END_SECONDS)
                    waits = 0
                except TimeoutError:
                    waits += 1
                    if waits % SILENT_WAITS == 0:
                        yield ":\n\n"
        finally:
            self._pages.discard(page)

    async def _run(self) -> None:
        while self._pages and not self._ended:
            try:
                if change := await self._look():
                    self._send(_frame(change))
            except Exception:
                _logger.exception("a look for the open pages failed")
            await asyncio.sleep(self._seconds)

    def _send(self, frame: str) -> None:
        for page in [*self._pages]:
            try:
                page.put_nowait(frame)
            except asyncio.QueueFull:
                self._pages.discard(page)


def _frame(state: State) -> str:
    return f"data: {json.dumps(state, separators=(',', ':'))}\n\n"
