"""What a visitor of the console does: each action is a form of a page of ours, and is written down with who sent it."""

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from bridge_service.errors import BridgeError
from bridge_service.settings.overrides import fault_of, read
from bridge_service.settings.policy import COLUMNS
from bridge_service.web.books import DEFAULT, Books
from bridge_service.web.forms import CSRF, form_of, is_own
from bridge_service.web.guard import user_of
from bridge_service.web.standing import SPANS
from bridge_service.web.views import Views

WAS: Final = "was_"
"""Before a field's name: what the page showed. Only what the visitor changed is set."""

AWAY: Final = "away"

_DIGITS: Final = 18
"""At most, of a turn's id."""

_logger: Final = logging.getLogger("bridge.console")


class Actions:
    """The actions. Each answers with a redirect to the page that shows its result.

    Parameters:
      csrf: what each form has to send.
    """

    def __init__(self, books: Books, views: Views, csrf: str) -> None:
        self._books = books
        self._views = views
        self._csrf = csrf

    def routes(self) -> list[Route]:
        """Return the paths of the actions."""
        root = self._views.root
        return [
            *(
                Route(f"{root}/dead/{what}", partial(self._decide, what), methods=["POST"])
                for what in ("retry", "drop")
            ),
            Route(f"{root}/bots/{{bot}}", self._set, methods=["POST"]),
            *(
                Route(f"{root}/{of}/{{id}}/{what}", partial(self._pause, of, what), methods=["POST"])
                for of in ("bots", "conversations")
                for what in ("pause", "resume")
            ),
        ]

    async def _decide(self, what: str, request: Request) -> Response:
        form = await self._form(request)
        if isinstance(form, Response):
            return form
        turn = form.get("turn", "")
        if not (turn.isascii() and turn.isdecimal() and len(turn) <= _DIGITS):
            return _refuse(HTTPStatus.BAD_REQUEST)
        answer = await self._act(request, what, turn)
        return self._see("dead", AWAY if answer is None else answer["outcome"])

    async def _set(self, request: Request) -> Response:
        form = await self._form(request)
        if isinstance(form, Response):
            return form
        bot = request.path_params["bot"]
        try:
            bot = bot if bot == DEFAULT else str(UUID(bot))
        except ValueError:
            return _refuse(HTTPStatus.NOT_FOUND)
        changed = [name for name in COLUMNS if form.get(name, "").strip() != form.get(f"{WAS}{name}", "").strip()]
        try:
            # A browser sends each end of a line as two characters.
            values = read([f"{name}={form.get(name, '')}".replace("\r\n", "\n") for name in changed])
        except ValueError as error:
            return await self._views.bot_page(request, bot, str(error))
        answer = await self._act(request, "set", bot, values) if values else {"outcome": "nothing_new"}
        if answer is not None and answer["outcome"] == "refused":
            return await self._views.bot_page(request, bot, fault_of(answer["constraint"]))
        return self._see(f"bots/{bot}", AWAY if answer is None else answer["outcome"])

    async def _pause(self, of: str, what: str, request: Request) -> Response:
        form = await self._form(request)
        if isinstance(form, Response):
            return form
        try:
            on = f"{of}/{UUID(request.path_params['id'])}"
        except ValueError:
            return _refuse(HTTPStatus.NOT_FOUND)
        seconds = form.get("seconds", "")
        if seconds not in SPANS:
            return _refuse(HTTPStatus.BAD_REQUEST)
        values = {"seconds": int(seconds)} if seconds and what == "pause" else None
        answer = await self._act(request, what, on, values)
        return self._see(on, AWAY if answer is None else answer["outcome"])

    async def _form(self, request: Request) -> dict[str, str] | Response:
        """Return the fields of a form of ours, or the refusal of another."""
        form = await form_of(request)
        if form is None:
            return _refuse(HTTPStatus.BAD_REQUEST)
        if not is_own(request.headers, form.get(CSRF, ""), self._csrf):
            return _refuse(HTTPStatus.FORBIDDEN)
        return form

    async def _act(
        self, request: Request, what: str, on: str, values: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any] | None:
        """Act; None if PostgreSQL did not take it."""
        who = user_of(request.headers.get("Authorization", "").encode("latin-1"))
        address = request.client.host if request.client else ""
        try:
            return await asyncio.to_thread(self._books.act, who, address, what, on, values)
        except BridgeError as error:
            _logger.warning("an action of the console failed: %s", error)
            return None
        finally:
            self._books.forget()

    def _see(self, path: str, said: str) -> Response:
        return RedirectResponse(f"{self._views.root}/{path}?said={said}", HTTPStatus.SEE_OTHER)


def _refuse(status: HTTPStatus) -> Response:
    return PlainTextResponse(f"{status.phrase.lower()}\n", status)
