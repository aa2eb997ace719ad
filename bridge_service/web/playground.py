"""The playground: a chat on the left, what the bridge does with it on the right, and buttons that break things."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bridge_service.web.feed import Feed
from bridge_service.web.templates import STATIC, page

BODY_BYTES: Final = 20_000


class Refused(Exception):
    """Raised by an action that cannot be done now; its text names a sentence of words.json."""


@dataclass(frozen=True, slots=True)
class Play:
    """What the page shows and does.

    Attributes:
      boot: names this run of the demo; a page of an earlier run sees by it that it has to load itself anew.
      people, bots: their first names.
      breaks: what can be broken.
      grouping_delay: seconds.
      act: does what a button asks for and returns what the page needs to know; raises Refused.
    """

    boot: str
    people: Sequence[str]
    bots: Sequence[str]
    breaks: Sequence[str]
    grouping_delay: float
    act: Callable[[Mapping[str, str]], Mapping[str, str]]


def routes(play: Play, feed: Feed, token: str) -> list[Route]:
    """Return the page, its files, its stream and its actions.

    Parameters:
      token: what the page sends with each action; see Local.
    """

    async def show(request: Request) -> Response:
        return page(request, "playground.html", play=play, token=token, boot=play.boot)

    async def live(_: Request) -> Response:
        return StreamingResponse(feed.frames(), media_type="text/event-stream")

    async def act(request: Request) -> Response:
        asked = _asked(await _body(request))
        if asked is None:
            return JSONResponse({"refused": "unreadable"}, HTTPStatus.BAD_REQUEST)
        try:
            return JSONResponse(dict(await asyncio.to_thread(play.act, asked)))
        except Refused as error:
            return JSONResponse({"refused": str(error)}, HTTPStatus.CONFLICT)

    return [Route("/", show), Route("/live", live), Route("/act", act, methods=["POST"]), STATIC]


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES:
            return b""
    return body


def _asked(body: bytes) -> dict[str, str] | None:
    try:
        asked = json.loads(body)
    except ValueError:
        return None
    if not isinstance(asked, dict) or not all(isinstance(value, str) for value in asked.values()):
        return None
    return asked
