"""One call that answers many visitors at the same time."""

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Generic, TypeVar

T = TypeVar("T")

KEPT: Final = 100
"""Keys whose last answer is remembered."""


class Question(Generic[T]):
    """A call that may take seconds. Its answer is kept; an error is not.

    One thread makes the call. It is a daemon, so a call that hangs delays neither another path nor the end of the
    process. Visitors that come meanwhile wait for the same answer without a thread.

    Parameters:
      ask: the call; each visitor that waits gets what it raises.
      seconds: how long an answer holds.
    """

    def __init__(self, ask: Callable[[], T], seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._seconds = seconds
        self._clock = clock
        self._answer: asyncio.Future[T] | None = None
        self._good_until = 0.0

    async def __call__(self) -> T:
        """Return the answer; always from the same event loop."""
        if self._answer is None or (self._answer.done() and self._is_over(self._answer)):
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[T] = loop.create_future()
            threading.Thread(target=self._run, args=(answer, loop), name="question", daemon=True).start()
            self._answer = answer
        return await asyncio.shield(self._answer)

    def forget(self) -> None:
        """Let the next visitor ask anew; from the event loop."""
        self._answer = None

    def _is_over(self, answer: "asyncio.Future[T]") -> bool:
        return answer.exception() is not None or self._clock() >= self._good_until

    def _run(self, answer: "asyncio.Future[T]", loop: asyncio.AbstractEventLoop) -> None:
        result, error = None, None
        try:
            result = self._ask()
        except Exception as raised:  # noqa: BLE001 - the visitors raise it
            error = raised

        def settle() -> None:
            self._good_until = self._clock() + self._seconds
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)  # type: ignore[arg-type]

        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:  # the server has stopped
            return


class Questions(Generic[T]):
    """One Question a key, of which one at a time makes its call: so many different keys cost one connection.

    Parameters:
      ask: the call.
      seconds: how long the answer of a key holds.
    """

    def __init__(self, ask: Callable[[str], T], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._asking = threading.Lock()
        self._kept: dict[str, Question[T]] = {}

    async def __call__(self, key: str) -> T:
        """Return the answer for a key; always from the same event loop."""
        question = self._kept.pop(key, None) or Question(partial(self._one, key), self._seconds)
        self._kept[key] = question
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
        return await question()

    def forget(self) -> None:
        """Forget the answers of all keys; from the event loop."""
        self._kept.clear()

    def _one(self, key: str) -> T:
        with self._asking:
            return self._ask(key)
