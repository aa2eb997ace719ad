"""`context:{match_id}` in Redis: a window through which people see the groups now open. Never read back as truth.

Best effort, on a thread of its own: a Redis that stalls costs the window its view and nobody a millisecond.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import redis
from dramatiq.errors import ConnectionClosed

from bridge_service.brokers.redis_client import Command, Nodes, redis_call
from bridge_service.machine.steps import Grouped

TTL_MARGIN_SECONDS: Final = 60
"""How long a key outlives its group's closing: the push deletes it, so this shows only when the push is late."""

PAUSE_SECONDS: Final = 5.0
_BACKLOG: Final = 10_000

_Job = Sequence[Command]


@dataclass(frozen=True, slots=True)
class _Group:
    match_id: str
    turn_id: int
    count: int
    opened_at: datetime
    due_at: datetime


class ContextWindow:
    """Shows open groups; forgets them when they are pushed."""

    def __init__(self, client: redis.Redis) -> None:
        self._nodes = Nodes(client)
        self._jobs: queue.Queue[_Job | None] = queue.Queue(_BACKLOG)
        self._thread = threading.Thread(target=self._run, name="window", daemon=True)

    def start(self) -> None:
        """Start showing."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Stop; what is not shown by then stays unseen."""
        self._put(None)
        self._thread.join(timeout)

    def show(self, events: Sequence[Grouped], now: datetime) -> None:
        """Show the reply groups that these events joined, if they stay open for a while."""
        groups = {
            event.turn_id: _Group(event.match_id, event.turn_id, event.place, event.opened_at, event.due_at)
            for event in events
            if event.kind == "message" and event.state == "open" and event.due_at is not None and event.due_at > now
        }
        if groups:
            self._put(_show(groups.values()))

    def close(self, match_ids: Sequence[str]) -> None:
        """Forget groups that were pushed."""
        if match_ids:
            # One command a key: in a cluster they lie apart.
            self._put([("DEL", _key(match_id)) for match_id in match_ids])

    def _put(self, job: _Job | None) -> None:
        with contextlib.suppress(queue.Full):  # it is only a window
            self._jobs.put_nowait(job)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                redis_call(lambda job=job: self._nodes.run(job))  # type: ignore[misc]
            except ConnectionClosed:
                self._nodes.forget()
                time.sleep(PAUSE_SECONDS)
                self._drop_backlog()

    def _drop_backlog(self) -> None:
        stop = False
        while not self._jobs.empty():
            stop |= self._jobs.get_nowait() is None
        if stop:
            self._put(None)


def _key(match_id: str) -> str:
    return f"context:{match_id}"


def _show(groups: Iterable[_Group]) -> list[Command]:
    commands: list[Command] = []
    for group in groups:
        key = _key(group.match_id)
        fields: dict[str, str | int] = {
            "count": group.count,
            "turn_id": group.turn_id,
            "first_message_at": group.opened_at.isoformat(),
            "due_at": group.due_at.isoformat(),
        }
        commands.append(("HSET", key, *(part for field in fields.items() for part in field)))
        # From the group's whole length, so that no clock but the database's is needed: longer than what is left of it.
        seconds = int((group.due_at - group.opened_at).total_seconds()) + TTL_MARGIN_SECONDS
        commands.append(("EXPIRE", key, seconds))
    return commands
