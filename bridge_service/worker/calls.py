"""The event loop of a worker process. It runs the calls of an async responder; no thread waits for them."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any, Final, TypeAlias

from bridge_service.process.loop import Loop

HANDS: Final = 4
"""Threads that hand in what calls returned: the event loop never waits for PostgreSQL."""

TURN_SECONDS: Final = 0.25
ABANDON_SECONDS: Final = 2.0
"""How long a cancelled call may take to end. After that its slot is free, even if it runs on."""

Answer: TypeAlias = Future[object]
"""What a call returned or raised."""


@dataclass(slots=True, eq=False)
class Call:
    """One call of the responder.

    Attributes:
      ask: calls the responder; returns an awaitable.
      over: takes the answer, on one of the `HANDS`; None if the call was cancelled and has no answer.
    """

    ask: Callable[[], Any]
    over: Callable[[Answer | None], None]
    task: asyncio.Task[Answer] | None = None
    cancelled: bool = False
    abandoned: bool = False


class Calls(Loop):
    """Runs at most `most` calls at once. A responder that blocks the event loop keeps it from beating."""

    def __init__(self, most: int) -> None:
        super().__init__("calls")
        self.abandoned = 0  # calls that were cancelled, and run on all the same
        self._most = most
        self._running = 0
        self._waiting: deque[Call] = deque()
        self._hands = ThreadPoolExecutor(HANDS, thread_name_prefix="hand in")
        self._loop: asyncio.AbstractEventLoop
        self._begun = Event()

    def begin(self, call: Call) -> None:
        """Begin a call as soon as fewer than `most` are running; from any thread, as are the next two."""
        self._tell(self._admit, call)

    def cancel(self, call: Call) -> None:
        """Cancel a call; one that is over stays as it is."""
        self._tell(self._cancel, call)

    def later(self, seconds: float, job: Callable[[], None]) -> None:
        """Do a job on one of the `HANDS` after some seconds."""
        self._tell(lambda: self._loop.call_later(seconds, self._hand, job))

    def first(self) -> None:
        """Make the event loop."""
        self._loop = asyncio.new_event_loop()
        self._begun.set()

    def turn(self) -> None:
        """Run the event loop for `TURN_SECONDS`."""
        self._loop.run_until_complete(asyncio.sleep(TURN_SECONDS))

    def last(self) -> None:
        """End all calls, and close the event loop."""
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.wait(tasks, timeout=TURN_SECONDS) if tasks else asyncio.sleep(0))
        self._hands.shutdown(wait=False)
        self._loop.close()

    # On the event loop

    def _admit(self, call: Call) -> None:
        self._waiting.append(call)
        self._next()

    def _next(self) -> None:
        while self._waiting and self._running < self._most:
            call = self._waiting.popleft()
            self._running += 1
            call.task = self._loop.create_task(_answer(call.ask))
            call.task.add_done_callback(partial(self._ended, call))

    def _cancel(self, call: Call) -> None:
        call.cancelled = True
        if call in self._waiting:
            self._waiting.remove(call)
            self._hand(partial(call.over, None))
        elif call.task is not None:
            call.task.cancel()
            self._loop.call_later(ABANDON_SECONDS, self._abandon, call)

    def _abandon(self, call: Call) -> None:
        if call.task is not None and not call.task.done():
            call.abandoned = True
            self.abandoned += 1
            self._free(call, None)

    def _ended(self, call: Call, task: asyncio.Task[Answer]) -> None:
        if call.abandoned:
            self.abandoned -= 1
        elif not task.cancelled():
            self._free(call, task.result())
        elif call.cancelled:
            self._free(call, None)
        else:  # the responder raised it
            answer: Answer = Future()
            answer.set_exception(asyncio.CancelledError())
            self._free(call, answer)

    def _free(self, call: Call, answer: Answer | None) -> None:
        self._running -= 1
        self._next()
        self._hand(partial(call.over, answer))

    def _hand(self, job: Callable[[], None]) -> None:
        self._hands.submit(self._guarded, job)

    def _tell(self, function: Callable[..., object], *arguments: Any) -> None:  # noqa: ANN401 - passed on
        self._begun.wait()
        self._loop.call_soon_threadsafe(function, *arguments)


async def _answer(ask: Callable[[], Any]) -> Answer:
    """Make a call and keep what it raises: a SystemExit would end the event loop."""
    answer: Answer = Future()
    try:
        answer.set_result(await ask())
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a responder raises is an attempt of its turn
        answer.set_exception(error)
    return answer
