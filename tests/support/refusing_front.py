"""A front of PostgreSQL, as managed services put there, that refuses start-up options in its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.front import Front

if TYPE_CHECKING:
    import asyncio

_ENCRYPTION_REQUESTS = {80877103, 80877104}
_REST = 8


def error(severity: str | None, state: str, words: str) -> bytes:
    """Return an ErrorResponse of PostgreSQL's protocol; some fronts leave out the severity."""
    fields = [b"C" + state.encode(), b"M" + words.encode()]
    if severity is not None:
        fields.insert(0, b"S" + severity.encode())
    body = b"".join(field + b"\0" for field in fields) + b"\0"
    return b"E" + (len(body) + 4).to_bytes(4, "big") + body


class RefusingFront(Front):
    """Before a PostgreSQL.

    Parameters:
      behind: the server's port.
      refusal: what is answered to a start with options, before the connection is closed.
    """

    def __init__(self, behind: int, refusal: bytes) -> None:
        super().__init__(behind)
        self.refused = 0
        self.let_through = 0
        self._refusal = refusal

    async def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
        """Refuse a start with options."""
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
            return None
        self.let_through += 1
        return head + parameters
