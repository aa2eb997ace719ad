"""Writes a row every 15 s that says that this process lives, with its memory and CPU: for `status` and `report`."""

import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from uuid import uuid4

from bridge_service.errors import BridgeError
from bridge_service.machine.alive import BEAT_SECONDS
from bridge_service.machine.steps import Store
from bridge_service.process.loop import Loop

_KIBIBYTE: Final = 1024


class Heartbeat(Loop):
    """Writes the row from its own thread, so that a process with a busy loop does not look dead.

    A row that PostgreSQL does not take is left out: the steps report an outage themselves.

    Parameters:
      role: `scheduler` or `worker`.
      environment: what this process's environment sets of the policy.
    """

    def __init__(self, store: Store, role: str, environment: Mapping[str, object]) -> None:
        super().__init__("heartbeat")
        self._store = store
        self._role = role
        self._environment = environment

    def first(self) -> None:
        """Draw the row's id: in the process that it stands for, after a fork."""
        self._process = uuid4()
        self._started = time.monotonic()
        self._cpu = time.process_time()

    def turn(self) -> None:
        """Write the row, then wait."""
        self._write(ended=False)
        self.pause(BEAT_SECONDS)

    def last(self) -> None:
        """Write that the process ended."""
        self._write(ended=True)

    def _write(self, *, ended: bool) -> None:
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
    """Return how much memory this process holds; without /proc, the most that it ever held."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * _KIBIBYTE
    return pages * resource.getpagesize()
