"""The event loop of an async responder, without a database: how many calls run, and how they end."""

from __future__ import annotations

import asyncio
import queue
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from bridge_service.worker import calls as module
from bridge_service.worker.calls import Answer, Call, Calls
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 5.0


class Desk:
    """Calls of a responder that waits for the test, and how each of them ended."""

    def __init__(self, most: int) -> None:
        self.calls = Calls(most)
        self.under_way: queue.Queue[str] = queue.Queue()
        self.ended: queue.Queue[tuple[str, Answer | None]] = queue.Queue()
        self._gates: dict[str, asyncio.Event] = {}

    async def waits(self, name: str) -> str:
        """Return the call's name once the test lets it."""
        self._gates[name] = asyncio.Event()
        self.under_way.put(name)
        await self._gates[name].wait()
        return name

    async def swallows(self, name: str) -> str:
        """As `waits`; but do not end when told to, only once the test lets it."""
        while True:
            try:
                return await self.waits(name)
            except asyncio.CancelledError:
                pass

    async def insists(self, name: str) -> str:
        """As `waits`; but answer when told to end."""
        try:
            return await self.waits(name)
        except asyncio.CancelledError:
            return f"{name}, all the same"

    def begin(self, name: str, ask: Callable[[], Any] | None = None) -> Call:
        """Begin a call."""
        call = Call(ask or partial(self.waits, name), lambda answer: self.ended.put((name, answer)))
        self.calls.begin(call)
        return call

    def let(self, name: str) -> None:
        """Let a call return."""
        self.calls._tell(self._gates[name].set)

    def end(self) -> tuple[str, Answer | None]:
        """Return the next call that ended, and its answer."""
        return self.ended.get(timeout=SECONDS)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Give a desk of two calls at once, which gives a cancelled call a moment."""
    monkeypatch.setattr(module, "ABANDON_SECONDS", 0.1)
    monkeypatch.setattr(module, "TURN_SECONDS", 0.02)
    desk = Desk(2)
    desk.calls.start()
    yield desk
    desk.calls.stop(SECONDS)


def test_no_more_calls_run_than_may(desk: Desk) -> None:
    """The others begin in their order, each as soon as one has ended."""
    for name in "abcd":
        desk.begin(name)
    assert [desk.under_way.get(timeout=SECONDS) for _ in range(2)] == ["a", "b"]
    for name, following in (("b", "c"), ("a", "d")):
        assert desk.under_way.empty()
        desk.let(name)
        ended, answer = desk.end()
        assert answer is not None
        assert (ended, answer.result()) == (name, name)
        assert desk.under_way.get(timeout=SECONDS) == following


def test_a_call_that_is_cancelled_has_no_answer(desk: Desk) -> None:
    """Neither one that runs nor one that waits for its place, and their places are free."""
    running, _, waiting = [desk.begin(name) for name in "abc"]
    for call, name in ((waiting, "c"), (running, "a")):
        desk.calls.cancel(call)
        assert desk.end() == (name, None)
    desk.begin("d")
    assert [desk.under_way.get(timeout=SECONDS) for _ in range(3)] == ["a", "b", "d"]


def test_a_call_that_is_over_is_not_cancelled(desk: Desk) -> None:
    """Its one answer stands."""
    call = desk.begin("a")
    desk.under_way.get(timeout=SECONDS)
    desk.let("a")
    _, answer = desk.end()
    assert answer is not None
    desk.calls.cancel(call)
    desk.begin("b")
    desk.under_way.get(timeout=SECONDS)
    assert desk.ended.empty()


def test_an_answer_that_comes_in_spite_of_the_cancelling_counts(desk: Desk) -> None:
    """It was paid for, and the token decides whether the turn still wants it."""
    call = desk.begin("a", partial(desk.insists, "a"))
    desk.under_way.get(timeout=SECONDS)
    desk.calls.cancel(call)
    _, answer = desk.end()
    assert answer is not None
    assert answer.result() == "a, all the same"


def test_a_call_that_does_not_end_when_told_to_keeps_no_place(desk: Desk) -> None:
    """After a moment it is given up, and counted until it ends; its answer is dropped."""
    for name in "ab":
        call = desk.begin(name, partial(desk.swallows, name))
        desk.under_way.get(timeout=SECONDS)
        desk.calls.cancel(call)
        assert desk.under_way.get(timeout=SECONDS) == name
        assert desk.end() == (name, None)
    assert desk.calls.abandoned == 2
    for name in "cd":
        desk.begin(name)
        assert desk.under_way.get(timeout=SECONDS) == name
    desk.let("a")
    eventually(lambda: desk.calls.abandoned == 1)
    desk.let("b")
    eventually(lambda: desk.calls.abandoned == 0)
    assert desk.ended.empty()


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), SystemExit(), KeyboardInterrupt(), asyncio.CancelledError()], ids=repr
)
def test_what_a_call_raises_is_its_answer(desk: Desk, error: BaseException) -> None:
    """Whatever it is, it ends neither the event loop nor another call."""

    async def fails() -> None:
        raise error

    desk.begin("a")
    desk.begin("b", fails)
    ended, answer = desk.end()
    assert answer is not None
    assert (ended, type(answer.exception())) == ("b", type(error))
    desk.let("a")
    assert desk.end()[0] == "a"


def test_a_responder_that_blocks_the_event_loop_is_seen_by_its_watchdog(desk: Desk) -> None:
    """The loop beats while calls wait, and does not while one of them blocks."""
    beats = threading.Semaphore(0)
    blocking, go_on = threading.Event(), threading.Event()

    async def blocks() -> None:
        desk.calls.beat = beats.release
        blocking.set()
        go_on.wait(SECONDS)

    desk.begin("a")
    desk.begin("b", blocks)
    assert blocking.wait(SECONDS)
    assert not beats.acquire(timeout=0.3)
    go_on.set()
    assert all(beats.acquire(timeout=SECONDS) for _ in range(3))


def test_a_job_is_done_later_and_not_on_the_event_loop(desk: Desk) -> None:
    """So it may wait for PostgreSQL."""
    names: queue.Queue[str] = queue.Queue()
    desk.calls.later(0.01, lambda: names.put(threading.current_thread().name))
    assert names.get(timeout=SECONDS).startswith("hand in")
