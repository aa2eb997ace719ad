"""What a page of ours sends: a bounded body, and the proof that no other website sent it."""

import hashlib
import hmac
from typing import Final
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.requests import Request

BODY_BYTES: Final = 20_000
FORM_BYTES: Final = 600_000
"""A persona of 20,000 characters, once as it was and once as it shall be, encoded."""

FIELDS: Final = 100
CSRF: Final = "csrf"
"""The form's field with the token."""


def csrf_token(secret: str) -> str:
    """Return what the console's pages send with each action: the same after a restart and on each console."""
    return hmac.new(secret.encode(), b"bridge console: actions", hashlib.sha256).hexdigest()


def is_own(headers: Headers, sent: str, token: str) -> bool:
    """Tell whether a page of ours sent a request that changes something.

    A browser names the page's website in Origin; and another website cannot read the token.

    Parameters:
      sent: the token that came with the request.
    """
    hosts = headers.getlist("Host")
    origins = [f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")]
    return (
        len(hosts) == 1
        and headers.getlist("Origin") in ([origin] for origin in origins)
        and hmac.compare_digest(sent.encode(), token.encode())
    )


async def body_of(request: Request, most: int = BODY_BYTES) -> bytes | None:
    """Return a request's body; None if it is longer than `most` bytes."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > most:
            return None
    return body


async def form_of(request: Request) -> dict[str, str] | None:
    """Return the fields of a form, the last of each name; None if it is too long or no form."""
    body = await body_of(request, FORM_BYTES)
    try:
        return None if body is None else dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS))
    except ValueError:
        return None
