"""As much of PostgreSQL as the machine's races need: READ COMMITTED, row locks, unique keys, lock timeouts.

A transaction is a generator that yields wherever another session may come between. Each look at the tables sees what
is committed at that moment and the transaction's own writes; others see those after the commit. Closing the generator
is a crash: everything is rolled back and every lock is free.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]

PATIENCE = 25
"""How often a transaction looks for a lock before it gives up, as lock_timeout makes it."""

WAITING = frozenset({"open", "queued"})
ACTIVE = frozenset({"composing", "typing"})
UNFINISHED = WAITING | ACTIVE


@dataclass(frozen=True, slots=True)
class Message:
    """A row of `messages`; `answers` are the messages that a bot's reply says it has read."""

    id: int
    match: int
    turn: int | None = None
    answers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Event:
    """A row of bridge.events; without a message it stands for a new match."""

    id: int
    match: int
    message: int | None
    captured_at: float
    turn: int | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """A row of bridge.turns; its draft is the set of messages that the responder has read."""

    id: int
    kind: str
    match: int
    state: str
    opened_at: float
    due_at: float
    deliver_at: float = 0.0
    retry_at: float = 0.0
    pushes: int = 0
    attempts: int = 0
    takeovers: int = 0
    merges: int = 0
    overtakes: int = 0
    plain: bool = True
    token: int | None = None
    covers: frozenset[int] = frozenset()
    draft: frozenset[int] = frozenset()
    reason: str = ""

    @property
    def keys(self) -> frozenset[tuple[str, int]]:
        """The entries that this row has in unique indexes."""
        keys = set()
        if self.kind == "initiation":
            keys.add(("initiation", self.match))
        elif self.state in WAITING:
            keys.add(("waiting", self.match))
        if self.state in ACTIVE:
            keys.add(("active", self.match))
        return frozenset(keys)


Row: TypeAlias = Message | Event | Turn
Place: TypeAlias = tuple[type[Row], int]


class Mode(Enum):
    """Row locks, as far as they are used."""

    KEY_SHARE = auto()
    NO_KEY_UPDATE = auto()
    UPDATE = auto()

    def conflicts(self, other: Mode) -> bool:
        """Whether two transactions cannot hold the two at once."""
        if Mode.KEY_SHARE in (self, other):
            return Mode.UPDATE in (self, other)
        return True


class LockTimeout(Exception):
    """A lock was not to be had; the transaction is rolled back."""


class UniqueViolation(Exception):
    """Another row has the key."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A point of an interleaving: how many messages were committed, and its step."""

    messages: int
    step: int


class Database:
    """The committed rows, the locks, and the clock."""

    def __init__(self, committed: Callable[[Transaction], None]) -> None:
        """Call `committed` with each transaction, just after its commit."""
        self.now = 0.0
        self.step = 0
        self.messages: dict[int, Message] = {}
        self.events: dict[int, Event] = {}
        self.turns: dict[int, Turn] = {}
        self.committed = committed
        self.locks: dict[Place, dict[Transaction, Mode]] = {}
        self.entering: dict[tuple[str, int], Transaction] = {}
        self._ids = itertools.count(1)

    def moment(self) -> Moment:
        """Return where the interleaving stands."""
        return Moment(len(self.messages), self.step)

    def next_id(self) -> int:
        """Take the next id; ids that a rollback leaves are never used again."""
        return next(self._ids)

    def run(self, body: Callable[[Transaction], Steps[T]]) -> Steps[T]:
        """Run one transaction: others may come between its last statement and its commit, and before its answer."""
        transaction = Transaction(self)
        try:
            answer = yield from body(transaction)
            yield
            transaction.commit()
        finally:
            transaction.end()
        yield
        return answer


class Transaction:
    """One session's view and writes until the commit."""

    def __init__(self, database: Database) -> None:
        """Begin."""
        self.database = database
        self.messages: dict[int, Message] = {}
        self.events: dict[int, Event] = {}
        self.turns: dict[int, Turn] = {}
        self.before: dict[int, Turn] = {}
        self.moved: dict[int, int | None] = {}
        self.superseded: dict[int, Turn] = {}  # as they were when they made way
        self.began = Moment(0, 0)
        self.looked: dict[int, Moment] = {}
        self.busy: int | None = None
        self._locked: list[Place] = []
        self._entered: list[tuple[str, int]] = []

    def see_messages(self) -> list[Message]:
        """One look at `messages`."""
        return list((self.database.messages | self.messages).values())

    def see_events(self) -> list[Event]:
        """One look at bridge.events, in the order of their ids."""
        return sorted((self.database.events | self.events).values(), key=lambda event: event.id)

    def see_turns(self) -> list[Turn]:
        """One look at bridge.turns."""
        return list((self.database.turns | self.turns).values())

    def event(self, number: int) -> Event:
        """One look at an event."""
        return self.events.get(number) or self.database.events[number]

    def turn(self, number: int) -> Turn | None:
        """One look at a turn."""
        return self.turns.get(number) or self.database.turns.get(number)

    def try_lock(self, place: Place, mode: Mode = Mode.NO_KEY_UPDATE) -> bool:
        """Lock a row unless another transaction holds it: SKIP LOCKED."""
        holders = self.database.locks.setdefault(place, {})
        if any(other is not self and held.conflicts(mode) for other, held in holders.items()):
            return False
        if self not in holders:
            self._locked.append(place)
        held = holders.get(self, mode)
        holders[self] = mode if mode.value > held.value else held
        return True

    def lock(self, place: Place, mode: Mode = Mode.NO_KEY_UPDATE) -> Steps[None]:
        """Lock a row, waiting for it.

        Raises:
          LockTimeout: another transaction holds it for too long.
        """
        for _ in range(PATIENCE):
            if self.try_lock(place, mode):
                return
            yield
        raise LockTimeout(place)

    def write(self, *rows: Row) -> Steps[None]:
        """Insert rows, or update rows, each under its lock.

        Raises:
          LockTimeout: as `lock`.
          UniqueViolation: another turn has the place in its conversation that this one is to take.
        """
        for row in rows:
            if isinstance(row, Message):
                self.messages[row.id] = row
            elif isinstance(row, Event):
                yield from self._write_event(row)
            else:
                yield from self._write_turn(row)

    def _write_event(self, event: Event) -> Steps[None]:
        yield from self.lock((Event, event.id))
        old = self.events.get(event.id) or self.database.events.get(event.id)
        if old is not None:
            self.moved.setdefault(event.id, old.turn)
        self.events[event.id] = event

    def _write_turn(self, turn: Turn) -> Steps[None]:
        yield from self.lock((Turn, turn.id))
        old = self.turn(turn.id)
        if old is not None:
            self.before.setdefault(turn.id, old)
        for key in turn.keys - (old.keys if old else frozenset()):
            yield from self._enter(key)
        self.turns[turn.id] = turn

    def _enter(self, key: tuple[str, int]) -> Steps[None]:
        for _ in range(PATIENCE):
            entering = self.database.entering.get(key, self)
            rivals = [turn for turn in self.see_turns() if key in turn.keys]
            if entering is self and not rivals:
                self.database.entering[key] = self
                self._entered.append(key)
                return
            if entering is self and all(self.try_lock((Turn, rival.id)) for rival in rivals):
                raise UniqueViolation(key)
            yield  # the other one has not committed: it may still roll back or leave
        raise LockTimeout(key)

    def upsert_waiting(self, turn: Turn) -> Steps[int]:
        """INSERT ... ON CONFLICT DO UPDATE: the conversation's waiting turn, new or old, which stays locked."""
        [key] = turn.keys
        for _ in range(PATIENCE):
            rival = next((other for other in self.see_turns() if key in other.keys), None)
            if rival is None:
                try:
                    yield from self._write_turn(turn)
                except UniqueViolation:
                    continue
                return turn.id
            yield from self.lock((Turn, rival.id))
            if (locked := self.turn(rival.id)) and key in locked.keys:
                return rival.id
        raise LockTimeout(key)

    def savepoint(self) -> tuple[dict[int, Any], ...]:
        """Return what `rollback_to` needs."""
        return tuple(dict(rows) for rows in self._written())

    def rollback_to(self, saved: tuple[dict[int, Any], ...]) -> None:
        """Forget what was written since; the locks stay, which is stricter than PostgreSQL."""
        for rows, before in zip(self._written(), saved, strict=True):
            rows.clear()
            rows.update(before)

    def _written(self) -> tuple[dict[int, Any], ...]:
        return self.messages, self.events, self.turns, self.before, self.moved

    def commit(self) -> None:
        """Let others see it, all at once."""
        self.database.messages.update(self.messages)
        self.database.events.update(self.events)
        self.database.turns.update(self.turns)
        self.database.committed(self)

    def end(self) -> None:
        """Free every lock; what is not committed is gone."""
        for place in self._locked:
            holders = self.database.locks[place]
            del holders[self]
            if not holders:
                del self.database.locks[place]
        for key in self._entered:
            self.database.entering.pop(key, None)
        self._locked.clear()
        self._entered.clear()
