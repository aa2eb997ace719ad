"""Tells PostgreSQL every few seconds that this process lives, and what it costs: for `status` and `report`."""

import resource
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from uuid import uuid4

from bridge_service.errors import BridgeError
from bridge_service.machine.alive import BEAT_SECONDS
from bridge_service.machine.steps import Store

_KIBIBYTE: Final = 1024


class Heartbeat:
    """Beats from a thread of its own, so that no busy loop looks like a dead process.

    A beat that does not reach PostgreSQL is left out: the steps tell of an outage themselves.

    Parameters:
      role: `scheduler` or `worker`.
      environment: what this process's environment sets of the policy.
    """

    def __init__(self, store: Store, role: str, environment: Mapping[str, float]) -> None:
        self._store = store
        self._role = role
        self._environment = environment
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start beating, the first time at once. Call it in the process itself, after a fork: it draws the id here."""
        self._process = uuid4()
        self._started = time.monotonic()
        self._cpu = time.process_time()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self, seconds: float = 1.0) -> None:
        """Beat a last time, for at most so many seconds; twice is harmless, and so is stopping what never started."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            self._beat(ended=False)
            if self._stopping.wait(BEAT_SECONDS):
                break
        self._beat(ended=True)

    def _beat(self, *, ended: bool) -> None:
        try:
            self._store.heartbeat(
                self._process,
                self._role,
                uptime=time.monotonic() - self._started,
                rss_bytes=resident_bytes(),
                cpu_seconds=time.process_time() - self._cpu,
                ended=ended,
                environment=self._environment,
            )
        except BridgeError:
            return


def resident_bytes() -> int:
    """Return how much memory this process holds; where there is no /proc, the most that it ever held."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * _KIBIBYTE
    return pages * resource.getpagesize()
