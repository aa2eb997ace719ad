"""A server for the browser of this machine only: no other website can read it."""

import re
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_HERE: Final = re.compile(r"(localhost|127\.0\.0\.1)(:[0-9]{1,5})?")
"""Under any port, since a tunnel may begin at another than the server's."""


class Local:
    """Lets only requests through whose Host is this machine.

    A name that another website's owner lets point to this machine would read the pages as its own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        hosts = Headers(scope=scope).getlist("Host")
        app = self._app
        if len(hosts) != 1 or not _HERE.fullmatch(hosts[0]):
            refusal = HTTPStatus.MISDIRECTED_REQUEST
            app = PlainTextResponse(f"{refusal.phrase.lower()}\n", refusal)
        await app(scope, receive, send)
