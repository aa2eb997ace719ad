"""What the steps answer, as dataclasses."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bridge_service.turns import Kind, Task


@dataclass(frozen=True, slots=True)
class Grouped:
    """An event that found its turn. `place` is its place there, from 1; times are aware.

    `beside_active` if another turn of the conversation is active, which this event's turn may overtake. `reason` of the
    first event of a turn that is cancelled: left, off, taken_over or not_drawn.
    """

    event_id: int
    kind: str
    match_id: str
    bot_id: str
    turn_id: int
    place: int
    opened_at: datetime
    due_at: datetime | None
    state: str
    beside_active: bool = False
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Overtaken:
    """A reply that makes way for a newer message; `superseded` is False if another session has locked it."""

    turn_id: int
    match_id: str
    superseded: bool
    merges: int


@dataclass(frozen=True, slots=True)
class Push:
    """A turn to enqueue: `first` if the journal is to tell of it.

    `step` is `compose`; or `woken`, if the end of the conversation's active turn made it due; or `dead`: the turn lost
    its last worker, and there is nothing to enqueue.

    `messages` counts the group (first pushes only); `recovered` if a worker's lease ran out; `due_at` when it was due.
    """

    turn_id: int
    step: str
    kind: Kind
    match_id: str
    messages: int
    first: bool
    recovered: bool
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Due:
    """The earliest due times of pushes, as the database's clock `now` sees them; None where nothing waits."""

    flush_at: datetime | None
    initiation_at: datetime | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step did.

    `name`: claimed, busy, nothing, fenced, typing, part, answered, interrupted, superseded, cancelled, held, later,
    failed or dead.
    `task`: what to write, if claimed. `next_turn`: the conversation's waiting turn, if it was pushed and may go on now.
    """

    name: str
    details: Mapping[str, Any]
    task: Task | None = None

    @property
    def next_turn(self) -> int | None:
        """The turn that the worker may go on with."""
        return self.details.get("next_turn")


@dataclass(frozen=True, slots=True)
class Deliveries:
    """What became of a set of deliveries, by turn.

    An outcome `alone` changed nothing: the turn is to be delivered alone. `due_in`: seconds until the next delivery,
    below 0 if it is due, None if none is planned.
    """

    outcomes: Mapping[int, Outcome]
    due_in: float | None
