"""A question that many visitors ask at the same time, and that is asked once."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Question(Generic[T]):
    """A question that may take seconds. Its answer is kept for a moment; an error is not.

    A thread asks, one at a time. It is a daemon, so a question that hangs delays neither another path nor the end of
    the process. All visitors that come meanwhile wait for the same answer and take no thread.

    Parameters:
      ask: what it raises is passed on to the visitors that waited.
      seconds: how long an answer is good.
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
        except RuntimeError:  # the server stopped meanwhile
            return
