"""`context:{match_id}` in Redis: shows people the open groups. The bridge never reads it back.

It writes from its own thread, so a Redis that stalls delays nothing else; what does not fit into its queue is left out.
"""

import contextlib
import queue
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import redis
from dramatiq.errors import ConnectionClosed

from bridge_service.brokers.redis_client import Command, Nodes, redis_call
from bridge_service.machine.answers import Grouped
from bridge_service.process.loop import Loop

TTL_MARGIN_SECONDS: Final = 60
"""How long a key outlives its group. The push deletes the key, so this matters only if the push is late."""

PAUSE_SECONDS: Final = 5.0
_BACKLOG: Final = 10_000

_Job = Sequence[Command]


class ContextWindow(Loop):
    """Shows open groups, and deletes their keys when they are pushed."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__("window")
        self._nodes = Nodes(client)
        self._jobs: queue.Queue[_Job | None] = queue.Queue(_BACKLOG)

    def show(self, events: Sequence[Grouped], now: datetime) -> None:
        """Show the reply groups that these events joined, if they stay open for a while."""
        if commands := _show(events, now):
            self._put(commands)

    def close(self, match_ids: Sequence[str]) -> None:
        """Delete the keys of groups that were pushed."""
        if match_ids:
            # One command for each key: a cluster holds them on different nodes.
            self._put([("DEL", _key(match_id)) for match_id in match_ids])

    def _put(self, job: _Job | None) -> None:
        with contextlib.suppress(queue.Full):
            self._jobs.put_nowait(job)

    def wake(self) -> None:
        """End the wait for a job."""
        self._put(None)

    def turn(self) -> None:
        """Run the next job; if Redis does not take it, pause and drop what was put meanwhile."""
        if not self._run(self._jobs.get()):
            self.pause(PAUSE_SECONDS)
            while not self._jobs.empty():
                self._jobs.get_nowait()

    def last(self) -> None:
        """Run what is left: a pushed group's key is deleted."""
        while not self._jobs.empty() and self._run(self._jobs.get_nowait()):
            pass

    def _run(self, job: _Job | None) -> bool:
        try:
            if job is not None:
                redis_call(lambda: self._nodes.run(job))
        except ConnectionClosed:
            self._nodes.forget()
            return False
        return True


def _key(match_id: str) -> str:
    return f"context:{match_id}"


def _show(events: Sequence[Grouped], now: datetime) -> list[Command]:
    """Return the commands that show groups which stay open, each by the latest event that joined it."""
    latest = {event.turn_id: event for event in events if event.kind == "message" and event.state == "open"}
    commands: list[Command] = []
    for event in latest.values():
        if event.due_at is None or event.due_at <= now:
            continue
        key, opened, due = _key(event.match_id), event.opened_at, event.due_at
        shown = ("count", event.place, "turn_id", event.turn_id)
        commands.append(("HSET", key, *shown, "first_message_at", opened.isoformat(), "due_at", due.isoformat()))
        # The group's whole length is longer than what is left of it, and needs no clock except PostgreSQL's.
        commands.append(("EXPIRE", key, int((due - opened).total_seconds()) + TTL_MARGIN_SECONDS))
    return commands
