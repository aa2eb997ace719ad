from __future__ import annotations

import threading
import time
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
import redis

from bridge_service.brokers.redis_client import connect
from bridge_service.demo.servers import RedisServer
from bridge_service.machine.answers import Grouped
from schedulers import window as module
from schedulers.window import TTL_MARGIN_SECONDS, ContextWindow
from tests.chaos.proxy import FINE, Way, Weather
from tests.support.waiting import eventually
from tests.support.weather import forgets_sockets, proxy_to

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW: Final = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
MATCH: Final = "de31323b-fb0b-4ac0-aa5a-e5b3299a5567"
KEY: Final = f"context:{MATCH}"


def event(
    place: int = 1,
    *,
    match: str = MATCH,
    kind: str = "message",
    state: str = "open",
    due_in: float = 15.0,
    turn: int = 7,
) -> Grouped:
    """Return an event that joined a group which closes in so many seconds."""
    due_at = NOW + timedelta(seconds=due_in)
    return Grouped(place, kind, match, "bot", turn, place, due_at - timedelta(seconds=15), due_at, state)


def lives() -> bool:
    """Whether a window's thread runs."""
    return any(thread.name == "window" for thread in threading.enumerate())


@pytest.fixture
def window(redis_server: RedisServer, redis_client: redis.Redis) -> Iterator[ContextWindow]:
    """Give a window that shows, on an empty Redis."""
    assert redis_client.keys() == []
    with closing(connect(redis_server.url())) as client:
        window = ContextWindow(client)
        window.start()
        yield window
        window.stop(5)


def test_an_open_group_is_shown(window: ContextWindow, redis_client: redis.Redis) -> None:
    """The hash has the contract's four fields, and lives longer than what is left of the group."""
    window.show([event(1), event(2)], NOW)
    eventually(lambda: redis_client.exists(KEY) == 1)
    assert redis_client.hgetall(KEY) == {
        "count": "2",
        "turn_id": "7",
        "first_message_at": NOW.isoformat(),
        "due_at": (NOW + timedelta(seconds=15)).isoformat(),
    }
    assert 15 < redis_client.ttl(KEY) <= 15 + TTL_MARGIN_SECONDS


def test_each_message_moves_the_count(window: ContextWindow, redis_client: redis.Redis) -> None:
    """What is shown is the last state, in the order in which it was told."""
    for place in range(1, 6):
        window.show([event(place)], NOW)
    eventually(lambda: redis_client.hget(KEY, "count") == "5")


def test_a_pushed_group_is_forgotten(window: ContextWindow, redis_client: redis.Redis) -> None:
    """Its key goes at once, others stay, and none that was told before comes back."""
    other = event(match="other", turn=8)
    window.show([event(), other], NOW)
    window.close([MATCH])
    window.show([event(match="last", turn=9)], NOW)
    eventually(lambda: set(redis_client.keys("context:*")) == {"context:other", "context:last"})


@pytest.mark.parametrize(
    "hidden",
    [
        event(state="queued"),
        event(kind="match"),
        event(due_in=0.0),
        event(due_in=-1.0),
        Grouped(1, "message", MATCH, "bot", 7, 1, NOW, None, "open"),
    ],
    ids=["queued", "opener", "due", "overdue", "no time"],
)
def test_only_groups_that_stay_open_are_shown(
    window: ContextWindow, redis_client: redis.Redis, hidden: Grouped
) -> None:
    """What is pushed already, or about to be, would be a key that nobody deletes."""
    window.show([hidden], NOW)
    window.show([event(match="last")], NOW)
    eventually(lambda: redis_client.keys("context:*") == ["context:last"])


def test_nothing_to_show_or_close_costs_nothing(window: ContextWindow, redis_client: redis.Redis) -> None:
    """No command is sent for an empty batch."""
    window.show([event(match="first")], NOW)
    eventually(lambda: redis_client.exists("context:first") == 1)
    redis_client.config_resetstat()
    window.show([], NOW)
    window.close([])
    window.stop(5)
    assert "cmdstat_hset" not in redis_client.info("commandstats")
    assert "cmdstat_del" not in redis_client.info("commandstats")


@forgets_sockets
def test_a_redis_that_stalls_costs_nobody_a_moment(
    redis_server: RedisServer, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who shows returns at once; what is told during the stall is left out; afterwards groups are shown again."""
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.05)
    with ExitStack() as stack:
        proxy = stack.enter_context(proxy_to(redis_server.port))
        client = stack.enter_context(closing(connect(f"redis://127.0.0.1:{proxy.port}/0", timeout=0.2)))
        window = ContextWindow(client)
        window.start()
        stack.callback(window.stop, 5)
        window.show([event(match="before")], NOW)
        eventually(lambda: redis_client.exists("context:before") == 1)
        proxy.set(Weather(stalled=frozenset({Way.ANSWERS})))
        began = time.monotonic()
        for _ in range(100):
            window.show([event()], NOW)
            window.close(["nobody"])
        assert time.monotonic() - began < 10  # one stall each would be 40 s
        proxy.set(FINE)

        def shown() -> bool:
            window.show([event(match="after")], NOW)
            return redis_client.exists("context:after") == 1

        eventually(shown)


@forgets_sockets
@pytest.mark.parametrize("reply", [b"*1\r\n:7\r\n", b"%1\r\n:1\r\n:2\r\n", b"?", b":7\r\n"])
def test_a_redis_that_answers_nonsense_closes_no_window(
    redis_server: RedisServer, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, reply: bytes
) -> None:
    """Where redis-py stumbles over a reply in code of its own, the thread lives, and shows again afterwards."""
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.05)
    with ExitStack() as stack:
        proxy = stack.enter_context(proxy_to(redis_server.port))
        proxy.set(Weather(garble=lambda _: reply))
        client = stack.enter_context(closing(connect(f"redis://127.0.0.1:{proxy.port}/0", timeout=0.2)))
        window = ContextWindow(client)
        window.start()
        stack.callback(window.stop, 5)
        window.show([event()], NOW)
        eventually(window._jobs.empty)
        proxy.set(FINE)

        def shown() -> bool:
            window.show([event(match="after")], NOW)
            return redis_client.exists("context:after") == 1

        eventually(shown)
        assert lives()


def test_a_redis_that_is_away_never_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is left out without a word, and the window stops all the same."""
    monkeypatch.setattr(module, "_BACKLOG", 10)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.05)
    with closing(connect("redis://127.0.0.1:1/0")) as client:
        window = ContextWindow(client)
        for place in range(1, 100):
            window.show([event(place)], NOW)
        assert window._jobs.qsize() == 10
        tried: list[int] = []
        pipeline = client.pipeline

        def counted(**options: Any) -> Any:  # noqa: ANN401
            tried.append(1)
            return pipeline(**options)

        monkeypatch.setattr(client, "pipeline", counted)
        window.start()
        eventually(window._jobs.empty)
        window.stop(5)
        assert not lives()
        assert len(tried) == 1  # what was told during an outage is old news after it


def test_a_stop_ends_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause after a failure ends at once, and so does the thread."""
    monkeypatch.setattr(module, "PAUSE_SECONDS", 4.0)
    with closing(connect("redis://127.0.0.1:1/0")) as client:
        window = ContextWindow(client)
        window.start()
        window.show([event()], NOW)
        eventually(window._jobs.empty)
        began = time.monotonic()
        window.stop(10)
        assert time.monotonic() - began < 3
        assert not lives()


def test_a_redis_that_dies_and_comes_back_is_shown_to_again(
    servers_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window opens again by itself."""
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.05)
    with (
        RedisServer(servers_folder / "window-redis") as server,
        closing(connect(server.url())) as client,
        closing(redis.Redis.from_url(server.url(), decode_responses=True)) as admin,
    ):
        window = ContextWindow(client)
        window.start()
        server.kill()
        window.show([event()], NOW)
        eventually(window._jobs.empty)
        server.start()

        def shown() -> bool:
            window.show([event()], NOW)
            return admin.exists(KEY) == 1

        eventually(shown)
        window.stop(5)


def test_many_threads_may_show_and_close(window: ContextWindow, redis_client: redis.Redis) -> None:
    """The listener shows while the planner closes; in the end what was told last is what is seen."""

    def work(number: int) -> None:
        for place in range(1, 21):
            window.show([event(place, match=f"m{number}", turn=number)], NOW)
        if number % 2:
            window.close([f"m{number}"])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    eventually(lambda: {redis_client.hget(f"context:m{number}", "count") for number in range(0, 10, 2)} == {"20"})
    eventually(lambda: len(redis_client.keys("context:*")) == 5)
