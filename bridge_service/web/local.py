"""A server for the browser of this machine only: no other website can read it, or press its buttons."""

import hmac
import re
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

TOKEN_HEADER: Final = "X-CSRF-Token"  # noqa: S105 - its name
_READS: Final = ("GET", "HEAD")
_HERE: Final = re.compile(r"(localhost|127\.0\.0\.1)(:[0-9]{1,5})?")
"""Under any port, since a tunnel may begin at another than the server's."""


class Local:
    """Lets only requests through that a page of its own sent.

    Parameters:
      app: the application behind.
      token: what a page of ours sends with each request that changes anything; another website cannot read it.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        refusal = self._refusal(scope["method"], Headers(scope=scope))
        app = self._app if refusal is None else PlainTextResponse(f"{refusal.phrase.lower()}\n", refusal)
        await app(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> HTTPStatus | None:
        hosts = headers.getlist("Host")
        # A name that another website's owner lets point to this machine would read the pages as its own.
        if len(hosts) != 1 or not _HERE.fullmatch(hosts[0]):
            return HTTPStatus.MISDIRECTED_REQUEST
        if method in _READS:
            return None
        token = headers.get(TOKEN_HEADER, "").encode()
        if headers.getlist("Origin") != [f"http://{hosts[0]}"] or not hmac.compare_digest(token, self._token.encode()):
            return HTTPStatus.FORBIDDEN
        return None
