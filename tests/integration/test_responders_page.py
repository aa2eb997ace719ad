"""The programs in docs/RESPONDERS.md run as they stand there."""

from __future__ import annotations

import asyncio
import re
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bridge_service.responders import Reply, ResponderUnavailable
from tests.support.model_server import ModelServer, answers, says, status
from tests.unit.test_responders import task

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PAGE = (Path(__file__).parents[2] / "docs" / "RESPONDERS.md").read_text(encoding="utf-8")
_, RESPONDER, LIBRARY, TEST = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def run(program: str, url: str) -> dict[str, Any]:
    """Run a program of the page with another address, and return its names."""
    names: dict[str, Any] = {}
    exec(program.replace("http://127.0.0.1:9000", url), names)  # noqa: S102 - our own page
    return names


def test_the_responder_in_ten_lines() -> None:
    """It answers what the server answers, and calls a server away that is."""
    with ModelServer() as server:
        reply: Callable[..., str] = run(RESPONDER, server.url)["reply"]
        server.next(answers({"text": "oui"}), status(429), status(503))
        assert reply(task("salut", "ça va ?")) == "oui"
        for _ in range(2):
            with pytest.raises(ResponderUnavailable):
                reply(task("salut"))
    with pytest.raises(ResponderUnavailable):
        reply(task("salut"))


def test_the_same_with_another_library() -> None:
    """A Reply is read and asked for again if it is none; the second model stands in, and two that are away are away."""
    pytest.importorskip("pydantic_ai", reason="requirements-dev.txt has it")

    async def use(names: dict[str, Any]) -> None:
        reply: Callable[..., Awaitable[Reply]] = names["reply"]
        assert await reply(task("salut")) == Reply(["oui"])
        assert await reply(task("salut")) == Reply([], "silence")
        assert await reply(task("salut")) == Reply(["enfin"])
        with pytest.raises(ResponderUnavailable):
            await reply(task("salut"))
        await names["client"].close()

    with ModelServer() as server:
        server.next(says('{"parts": ["oui"]}'), says('{"action": "silence", "parts": []}'))
        server.next(says("bof"), status(429), says('{"parts": ["enfin"]}'), status(503), status(503))
        asyncio.run(use(run(LIBRARY, server.url)))
        assert len(server.calls) == 7


def test_the_test_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task made by hand is one that the responder above takes."""
    with ModelServer() as server:
        server.does(answers({"text": "oui"}))
        bots = types.ModuleType("shop.bots")
        vars(bots).update(run(RESPONDER, server.url))
        monkeypatch.setitem(sys.modules, "shop", types.ModuleType("shop"))
        monkeypatch.setitem(sys.modules, "shop.bots", bots)
        run(TEST, server.url)
        assert len(server.calls) == 1
