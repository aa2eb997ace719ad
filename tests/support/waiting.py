"""Waiting for what another thread, process or server is about to do; never for a fixed time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg2.extensions import connection as Connection  # noqa: N812 - a class that psycopg2 names as a function

TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 0.02


def eventually(check: Callable[[], bool | None], timeout: float = TIMEOUT_SECONDS) -> None:
    """Call `check` until it holds.

    Parameters:
      check: raises AssertionError or returns False as long as it does not hold yet; it is called at least once.
      timeout: seconds.

    Raises:
      AssertionError: it never held; its own last error, if it raised one.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            if check() is not False:
                return
            failure = AssertionError(f"did not hold within {timeout:g} s")
        except AssertionError as error:
            failure = error
        if time.monotonic() > deadline:
            raise failure
        time.sleep(POLL_SECONDS)


def wait_for_lock_wait(connection: Connection, pid: int, timeout: float = TIMEOUT_SECONDS) -> None:
    """Return once a backend waits for a lock that another one holds: the moment at which a race is staged.

    Parameters:
      connection: another connection than the backend's; it may be inside a transaction.
      pid: the backend's, as `connection.get_backend_pid()` or pg_backend_pid() gives it.
      timeout: seconds.

    Raises:
      AssertionError: it never waited; the error says what it did instead.
    """

    def check() -> None:
        with connection.cursor() as cursor:
            # Within a transaction pg_stat_activity shows for ever what it showed first.
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute("SELECT wait_event_type, state, query FROM pg_stat_activity WHERE pid = %s", (pid,))
            activity = cursor.fetchone()
        assert activity is not None, f"there is no backend {pid}"
        assert activity[0] == "Lock", f"backend {pid} does not wait for a lock: {activity}"

    eventually(check, timeout)
