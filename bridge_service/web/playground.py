"""The playground: a chat on the left, what the bridge does with it on the right, and buttons that break things."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from bridge_service.web.feed import Feed
from bridge_service.web.forms import body_of, is_own
from bridge_service.web.templates import STATIC, page

TOKEN_HEADER: Final = "X-CSRF-Token"  # noqa: S105 - its name


class Refused(Exception):
    """Raised by an action that cannot be done now; its text names a sentence of words.json."""


@dataclass(frozen=True, slots=True)
class Play:
    """What the page shows and does.

    Attributes:
      boot: names this run of the demo; a page of an earlier run sees by it that it has to load itself anew.
      people, bots: their first names.
      breaks: what can be broken.
      settings: what can be set, each with a word of words.json.
      act: does what a button asks for and returns what the page needs to know; raises Refused.
    """

    boot: str
    people: Sequence[str]
    bots: Sequence[str]
    breaks: Sequence[str]
    settings: Sequence[str]
    act: Callable[[Mapping[str, str]], Mapping[str, str]]


def routes(play: Play, feed: Feed, token: str) -> list[Route]:
    """Return the page, its files, its stream and its actions.

    Parameters:
      token: what the page sends with each action; see forms.py.
    """

    async def show(request: Request) -> Response:
        return page(request, "playground.html", play=play, token=token, boot=play.boot)

    async def live(_: Request) -> Response:
        return StreamingResponse(feed.frames(), media_type="text/event-stream")

    async def act(request: Request) -> Response:
        if not is_own(request.headers, request.headers.get(TOKEN_HEADER, ""), token):
            return PlainTextResponse("forbidden\n", HTTPStatus.FORBIDDEN)
        asked = _asked(await body_of(request) or b"")
        if asked is None:
            return JSONResponse({"refused": "unreadable"}, HTTPStatus.BAD_REQUEST)
        try:
            return JSONResponse(dict(await asyncio.to_thread(play.act, asked)))
        except Refused as error:
            return JSONResponse({"refused": str(error)}, HTTPStatus.CONFLICT)

    return [Route("/", show), Route("/live", live), Route("/act", act, methods=["POST"]), STATIC]


def _asked(body: bytes) -> dict[str, str] | None:
    try:
        asked = json.loads(body)
    except ValueError:
        return None
    if not isinstance(asked, dict) or not all(isinstance(value, str) for value in asked.values()):
        return None
    return asked
