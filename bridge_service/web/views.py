"""The console's pages, and the streams that keep them up to date."""

import time
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from bridge_service.settings.overrides import value_text
from bridge_service.settings.policy import COLUMNS, POLICY
from bridge_service.web.books import DEAD_LINES, DEFAULT, Books
from bridge_service.web.charts import draw
from bridge_service.web.feed import Feed
from bridge_service.web.observer import LOOK_SECONDS, Observer
from bridge_service.web.page import REFRESH_SECONDS, clock, moment_of, overview, rows
from bridge_service.web.standing import SPANS, of_bot, of_conversation
from bridge_service.web.story import timeline
from bridge_service.web.templates import LANGUAGES, language_of, page, render

Context = dict[str, Any]

LIVE: Final = ("overview", "bots", "dead", "actions")
"""Pages that show what is so now. The others are read when they are asked for."""

SAID: Final = (
    *("retried", "cancelled", "dropped", "set", "nothing", "nothing_new", "away"),
    *("paused", "resumed", "not_paused", "no_bot"),
)
"""What an action may come to, each with a sentence of words.json."""


TEXTS: Final = frozenset(COLUMNS.keys() - set(POLICY))
"""The columns that hold a text of several lines."""

SHOWN: Final = 60
"""Characters of a value in the list of bots."""


class Views:
    """The pages. Every visitor of one page shares one look at PostgreSQL.

    Parameters:
      root: what stands before the paths.
      csrf: what a page sends with an action; None: the pages have no actions.
    """

    def __init__(self, observer: Observer, books: Books, root: str, csrf: str | None) -> None:
        self._observer = observer
        self._books = books
        self.root = root
        self._csrf = csrf
        self._contexts = {
            "overview": self._overview,
            "bots": self._bots,
            "dead": self._dead,
            "actions": self._actions,
        }
        self._feeds = {
            (name, code): Feed(look, look, LOOK_SECONDS)
            for name in LIVE
            for code in LANGUAGES
            for look in [partial(self._fresh, name, code)]
        }

    def routes(self) -> list[Route]:
        """Return the pages and their streams."""
        root = self.root
        return [
            Route(root or "/", partial(self._show, "overview")),
            Route(f"{root}/live", partial(self._live, "overview")),
            *(
                route
                for name in ("bots", "dead", "actions")
                for route in (
                    Route(f"{root}/{name}", partial(self._show, name)),
                    Route(f"{root}/{name}/live", partial(self._live, name)),
                )
            ),
            Route(f"{root}/bots/{{bot}}", self._show_bot),
            Route(f"{root}/conversations", self._find),
            Route(f"{root}/conversations/{{id}}", self._show_story),
        ]

    def stop(self) -> None:
        """End every stream; from any thread."""
        for feed in self._feeds.values():
            feed.stop()

    async def bot_page(self, request: Request, bot: str, fault: str = "") -> Response:
        """Show what holds for a bot.

        Parameters:
          bot: its id, or `default`.
          fault: why the values that were sent were not set.
        """
        known, own = await self._books.bot(bot), {}
        for row in await self._books.bots() or ():
            if row["bot"] == bot:
                own = row["values"]
        values = (
            [
                (
                    name,
                    value_text(name, held["value"]),
                    held["source"],
                    value_text(name, own[name]) if name in own else "",
                )
                for name in COLUMNS
                if (held := (known[0] or {}).get(name)) is not None
            ]
            if known
            else []
        )
        status = HTTPStatus.BAD_REQUEST if fault else HTTPStatus.OK
        standing = None if bot == DEFAULT else await self._books.standing(bot)
        return self._page(
            request,
            "bot",
            status,
            away=known is None,
            bot=bot,
            values=values,
            texts=TEXTS,
            fault=fault,
            said_of_bot=of_bot(standing[0], time.time()) if standing else [],
            spans=SPANS,
        )

    # Requests

    async def _show(self, name: str, request: Request) -> Response:
        after = request.query_params.get("after", "")
        if name == "dead" and after.isdecimal() and after.isascii() and len(after) < 18:  # noqa: PLR2004 - of a bigint
            return self._page(request, name, **await self._dead(after))
        refresh = request.query_params.get("refresh") != "off"
        live = f"{self.root}{'' if name == 'overview' else f'/{name}'}/live" if refresh else None
        return self._page(request, name, refresh=refresh, live=live, **await self._contexts[name]())

    async def _live(self, name: str, request: Request) -> Response:
        feed = self._feeds[name, language_of(request)]
        return StreamingResponse(feed.frames(), media_type="text/event-stream", headers={"Vary": "Accept-Language"})

    async def _show_bot(self, request: Request) -> Response:
        bot = request.path_params["bot"]
        if bot != DEFAULT and (bot := _uuid(bot) or "") == "":
            return self._page(request, "unknown", HTTPStatus.NOT_FOUND, what="bot")
        return await self.bot_page(request, bot)

    async def _find(self, request: Request) -> Response:
        asked = _uuid(request.query_params.get("id", "").strip())
        if asked is None:
            return self._page(request, "unknown", HTTPStatus.NOT_FOUND, what="id")
        return RedirectResponse(f"{self.root}/conversations/{asked}", HTTPStatus.SEE_OTHER)

    async def _show_story(self, request: Request) -> Response:
        asked = _uuid(request.path_params["id"])
        if asked is None:
            return self._page(request, "unknown", HTTPStatus.NOT_FOUND, what="id")
        found = await self._books.story(asked)
        if found is not None and found[0] is None:
            return self._page(request, "unknown", HTTPStatus.NOT_FOUND, what="conversation")
        story = found[0] if found else None
        at = time.time()
        steps = [(moment_of(step.at, at), *step[1:]) for step in timeline(story)] if story else []
        return self._page(
            request,
            "conversation",
            away=story is None,
            match=story["match_id"] if story else asked,
            asked=asked,
            steps=steps,
            facts=of_conversation(story, at) if story else [],
            spans=SPANS,
            turns=rows(story["turns"], at) if story else [],
        )

    def _page(self, request: Request, name: str, status: HTTPStatus = HTTPStatus.OK, **values: Any) -> Response:  # noqa: ANN401 - a template takes anything
        said = request.query_params.get("said")
        defaults = {"live": None, "refresh": None, "seconds": REFRESH_SECONDS, "said": said if said in SAID else None}
        return page(request, "frame.html", status, **self._common(name), **{**defaults, **values})

    # What the templates show

    def _common(self, name: str) -> Context:
        return {"view": name, "root": self.root, "csrf": self._csrf, "now": clock(time.time())}

    async def _fresh(self, name: str, code: str) -> Context:
        values = {**self._common(name), **await self._contexts[name](), "said": None}
        html = render(f"view_{name}.html", code, **values)
        return {"html": html, "title": render("title.html", code, **values).strip()}

    async def _overview(self) -> Context:
        look = await self._observer.look()
        latest = late = charts = None
        if look.figures is not None:
            latest, late, charts = await self._books.latest(), await self._books.late(), await self._books.charts()
        return {
            **overview(look),
            "away": look.figures is None,
            "latest": rows(latest or (), look.at),
            "late": rows(late or (), look.at),
            "charts": draw(charts[0]) if charts and charts[0] else [],
        }

    async def _dead(self, after: str = "0") -> Context:
        lines = await self._books.dead(after)
        last = lines[-1]["turn_id"] if lines and len(lines) == DEAD_LINES else None
        return {"away": lines is None, "dead": rows(lines or (), time.time()), "after": last}

    async def _bots(self) -> Context:
        lines, today = await self._books.bots(), await self._books.spending()
        spent = {row["bot_id"]: (row["tokens_in"] + row["tokens_out"], row["cost"]) for row in today or ()}
        at = time.time()
        bots = [
            (
                line,
                ", ".join(
                    f"{name.upper()}={value_text(name, value)[:SHOWN]}" for name, value in line["values"].items()
                ),
                of_bot(line.get("standing"), at),
            )
            for line in lines or ()
        ]
        return {"away": lines is None, "bots": bots, "spent": spent}

    async def _actions(self) -> Context:
        lines = await self._books.actions()
        return {"away": lines is None, "actions": rows(lines or (), time.time())}


def _uuid(text: str) -> str | None:
    try:
        return str(UUID(text))
    except ValueError:
        return None
