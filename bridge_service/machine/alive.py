"""Which processes live, by the heartbeats that they leave in PostgreSQL."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

ROLES: Final = ("scheduler", "worker")

BEAT_SECONDS: Final = 15.0

SILENCE_SECONDS: Final = 3 * BEAT_SECONDS
"""A process whose last heartbeat is older is not alive."""

ALIVE: Final = "alive"


def count_alive(processes: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Count the living processes of each role, as machine/sql/operate/processes.sql returns them."""
    alive = Counter(process["role"] for process in processes if process["state"] == ALIVE)
    return {role: alive[role] for role in ROLES}
