"""A bound on how many threads do a thing at once, first come, first served."""

import threading
from collections import deque

from bridge_service.errors import DatabaseUnavailable


class Places:
    """A context manager that at most `most` threads are inside of; the others wait, in order.

    A semaphore of the standard library may let a newcomer pass a thread that waits already.
    """

    def __init__(self, most: int, seconds: float) -> None:
        """Set up.

        Parameters:
          most: threads inside at once.
          seconds: how long a thread waits for a place.
        """
        self._free = most
        self._seconds = seconds
        self._waiting: deque[threading.Event] = deque()
        self._guard = threading.Lock()

    def __enter__(self) -> None:
        """Take a place.

        Raises:
          DatabaseUnavailable: none became free in time.
        """
        with self._guard:
            if self._free:
                self._free -= 1
                return
            mine = threading.Event()
            self._waiting.append(mine)
        if mine.wait(self._seconds):
            return
        with self._guard:
            if mine.is_set():
                return  # given just now
            self._waiting.remove(mine)
        raise DatabaseUnavailable(f"no connection to PostgreSQL became free within {self._seconds:g} s")

    def __exit__(self, *_: object) -> None:
        """Hand the place to the thread that has waited longest."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1
