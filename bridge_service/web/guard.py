"""Guards every port: the token, the bound of requests at once, and the safe headers.

Every path except those below OPEN asks for the token, so a new path does too.
"""

import asyncio
import base64
import binascii
import contextlib
import hmac
import logging
from http import HTTPStatus
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN: Final = "/health/"
"""Paths below it answer in fixed words. Platforms probe them without credentials."""

CHALLENGE: Final = 'Basic realm="bridge"'
"""The WWW-Authenticate of a refusal: it makes a browser ask for the password."""

USER_CHARACTERS: Final = 100

REFUSAL: Final = "unauthorized\n"
BUSY: Final = "busy\n"
STOPPING: Final = "stopping\n"

REQUESTS_AT_ONCE: Final = 200
"""A request outlives the visitor that hangs up until PostgreSQL answers. So the requests have a bound."""

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every answer, errors included. A page may set its own Content-Security-Policy."""

_logger: Final = logging.getLogger("bridge.web")


def admits(token: str | None, path: str, authorization: bytes) -> bool:
    """Tell whether the guard lets a request through.

    Parameters:
      token: CONSOLE_TOKEN, which is ASCII; None admits every visitor.
      path: without its query, as the server looks it up.
      authorization: the header of that name as it was sent, empty if there is none: `Bearer` and the token, or `Basic`
        with the token as the password of any user.
    """
    if token is None or path.startswith(OPEN):
        return True
    # An early end of the comparison would tell how many first characters are right.
    return hmac.compare_digest(_sent(authorization), token.encode())


def user_of(authorization: bytes) -> str:
    """Return the user's name that came with the password, without what no terminal shows; empty if none came."""
    name = _credentials(authorization)[0].decode(errors="replace")
    return "".join(each for each in name if each.isprintable())[:USER_CHARACTERS]


def _sent(authorization: bytes) -> bytes:
    return _credentials(authorization)[1]


def _credentials(authorization: bytes) -> tuple[bytes, bytes]:
    scheme, _, credentials = authorization.strip(b" \t").partition(b" ")
    credentials = credentials.lstrip(b" ")
    match scheme.lower():
        case b"bearer":
            return b"", credentials
        case b"basic":
            with contextlib.suppress(binascii.Error):
                user, _, password = base64.b64decode(credentials, validate=True).partition(b":")
                return user, password
    return b"", b""


class Guarded:
    """An application that answers requests with the token, at most REQUESTS_AT_ONCE at once, and always with HEADERS.

    Parameters:
      app: the application behind.
      token: what a visitor has to send for every path that is not below OPEN; None for nothing.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token
        self._answering = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        begun = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        self._answering += 1
        try:
            await self._choose(scope)(scope, receive, guarded)
        except asyncio.CancelledError:  # the server stops and waits no longer
            if not begun:
                await PlainTextResponse(STOPPING, HTTPStatus.SERVICE_UNAVAILABLE)(scope, receive, guarded)
        except Exception:
            _logger.exception("an answer failed")
        finally:
            self._answering -= 1

    def _choose(self, scope: Scope) -> ASGIApp:
        if self._answering > REQUESTS_AT_ONCE:
            return PlainTextResponse(BUSY, HTTPStatus.SERVICE_UNAVAILABLE)
        authorization = dict(scope["headers"]).get(b"authorization", b"")
        if not admits(self._token, scope["path"], authorization):
            return PlainTextResponse(REFUSAL, HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": CHALLENGE})
        return self._app
