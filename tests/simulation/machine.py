"""The SQL functions of the machine in Python, statement by statement; each `yield` is where another session may come.

Every one of them mirrors the function of its name in bridge_service/machine/sql. A machine may be built with one
planted mistake: then one rule is left out, at the place where it stands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from tests.simulation.database import (
    ACTIVE,
    UNFINISHED,
    WAITING,
    Event,
    LockTimeout,
    Message,
    Mode,
    Turn,
    UniqueViolation,
)

if TYPE_CHECKING:
    from tests.simulation.database import Database, Moment, Steps, Transaction

INITIATION_DELAY = 30.0
LEASE = 15.0
AGAIN = 10.0
BUSY = 1.0
AGAIN_MAX = 20.0
WINDOW = 3
SET = 3
MAX_ATTEMPTS = 3


class Mistake(Enum):
    """A rule that is left out; the value says which, and what is done instead."""

    CLAIM_OVER_ACTIVE = "T1: a turn becomes active beside another one, there is no index"
    GROUP_DO_NOTHING = "T2: grouping takes the waiting turn as it sees it, without waiting for a claim"
    GROUP_AGAIN = "T2: grouping moves events that have found their turn meanwhile"
    GROUP_IN_PARTS = "T2: grouping takes what it gets of a conversation"
    CLAIM_READS_FIRST = "T3: the claim reads the turn's events before it holds the turn's lock"
    TAKE_PAST_WAITING = "T4: the claim takes ungrouped events past a waiting turn"
    TAKE_IN_PARTS = "T4: the claim takes along what it gets of a conversation"
    CLAIM_OPEN = "T5: an open turn may be claimed"
    DELIVER_EARLY = "T5: a delivery does not look at the clock"
    ONE_TIME_FOR_BOTH = "T5: the time to push again is the time to deliver"
    DELIVER_AGAIN = "T5: an answered turn may be delivered again"
    CLAIM_BEFORE_RETRY = "T5: a turn that failed is claimed by any push"
    CLAIM_OVER_TOKEN = "T6: a claim takes a turn that somebody composes"
    FINISH_UNFENCED = "T6: a draft is taken from whoever brings it"
    EXPIRED_KEEPS_TOKEN = "T6: a lease that has run out is pushed with its token"
    EXPIRED_TO_QUEUED = "T6: a lease that has run out goes back to queued"
    END_WAKES_NOBODY = "T7: the end of a turn leaves the waiting one asleep"
    BUSY_SLEEPS = "T7: a claim that finds the conversation busy does not ask whether the active turn is just ending"
    PUSH_ONCE = "T9: a push is believed to have arrived"
    LOOK_AT_GROUPED_ONLY = "D1: the last look sees grouped events only"
    NO_LAST_LOOK = "D1: there is no last look"
    MERGES_FORGOTTEN = "D2: the waiting turn does not inherit the merges"
    FAILURES_FORGOTTEN = "E4: the waiting turn does not inherit the failures"
    RETRY_PASSES_BY = "E1: a turn that is claimed again composes although a newer one waits"
    OVERTAKE_SEES_LITTLE = "E1: an overtake does not look again at what it has locked"
    PLAIN_OVERTAKEN = "E3: a call that cannot be ended is overtaken"
    OVERTAKES_FORGOTTEN = "E3: calls that are ended are not counted"
    EVENTS_LEFT_BEHIND = "D2: the events stay with the superseded turn"
    ANSWER_THEN_END = "D4: reply and end of the turn are two transactions"
    OPENER_UNLOCKED = "F1: the opener looks at the messages without a lock"
    OPENER_BLIND = "F1: the opener does not look at the messages"
    MESSAGE_UNLOCKED = "F1: a message does not lock its match's event"
    AWAY_COUNTS = "A1: a responder that is away counts as an error"


UNNOTICED = {Mistake.GROUP_DO_NOTHING, Mistake.CLAIM_READS_FIRST}
"""Mistakes that the delivery would notice, by comparing the draft's events with the turn's; so it does not compare."""


@dataclass(frozen=True, slots=True)
class Push:
    """What is enqueued: a turn's id and the step."""

    turn: int
    step: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a worker gets: the messages to answer, or none of its own business."""

    outcome: str
    messages: frozenset[int] = frozenset()


class Machine:
    """The steps."""

    def __init__(
        self, database: Database, *, delay: float, max_merges: int, slow: int, mistake: Mistake | None
    ) -> None:
        """Run on a database where the app's own triggers are so `slow`, with at most one rule left out."""
        self.database = database
        self.delay = delay
        self.slow = slow
        self.max_merges = max_merges
        self.mistake = mistake

    # What the app's transaction does, with its triggers.

    def insert_match(self, tx: Transaction, match: int) -> Steps[None]:
        """INSERT INTO matches."""
        yield from tx.write(Event(self.database.next_id(), match, None, self.database.now))

    def insert_message(self, tx: Transaction, match: int) -> Steps[int]:
        """INSERT INTO messages, by a person."""
        if self.mistake is not Mistake.MESSAGE_UNLOCKED:
            for event in tx.see_events():
                if event.match == match and event.message is None:
                    opener = tx.turn(event.turn) if event.turn else None
                    if opener is None or opener.state in UNFINISHED:
                        yield from tx.lock((Event, event.id), Mode.KEY_SHARE)
        yield
        message = Message(self.database.next_id(), match)
        yield from tx.write(message, Event(self.database.next_id(), match, message.id, self.database.now))
        return message.id

    # What schedulers call.

    def group_events(self, tx: Transaction) -> Steps[None]:
        """Ungrouped events become turns."""
        seen = [event.id for event in tx.see_events() if event.turn is None]
        yield
        taken = yield from self._take(tx, seen, again=self.mistake is Mistake.GROUP_AGAIN)
        if len(taken) != len(seen) and self.mistake is not Mistake.GROUP_IN_PARTS:
            left = {event.match for event in tx.see_events() if event.turn is None and event.id in set(seen) - taken}
            taken = {number for number in taken if tx.event(number).match not in left}
        yield
        events = [tx.event(number) for number in sorted(taken)]
        messages = [event for event in events if event.message is not None]
        matches = sorted({event.match for event in messages})
        for event in events:
            if event.message is None:
                turn = Turn(
                    self.database.next_id(), "initiation", event.match, "open", event.captured_at,
                    event.captured_at + INITIATION_DELAY,
                )  # fmt: skip
                yield from tx.write(turn, replace(event, turn=turn.id))
                yield
        for opener in [turn for turn in tx.see_turns() if turn.kind == "initiation" and turn.match in matches]:
            if opener.state in UNFINISHED:
                yield from tx.lock((Turn, opener.id))
                if (locked := tx.turn(opener.id)) and locked.state in UNFINISHED:
                    yield from self._end(tx, locked, "cancelled", "message")
        yield
        for match in matches:
            first = min(event.captured_at for event in messages if event.match == match)
            yield from self._open_waiting(tx, match, first)
        yield
        waiting = {turn.match: turn.id for turn in tx.see_turns() if turn.kind == "reply" and turn.state in WAITING}
        for event in messages:
            again = self.mistake is Mistake.GROUP_AGAIN
            if event.match in waiting and (again or tx.event(event.id).turn is None):
                yield from tx.write(replace(event, turn=waiting[event.match]))

    def _take(self, tx: Transaction, seen: list[int], *, again: bool = False) -> Steps[set[int]]:
        """Lock what nobody holds; look again at what is locked."""
        taken = set()
        for number in seen:
            if tx.try_lock((Event, number)) and (again or tx.event(number).turn is None):
                taken.add(number)
            yield
        return taken

    def _open_waiting(self, tx: Transaction, match: int, first: float) -> Steps[int]:
        if self.mistake is Mistake.GROUP_DO_NOTHING:
            for turn in tx.see_turns():
                if ("waiting", match) in turn.keys:
                    return turn.id
        turn = Turn(self.database.next_id(), "reply", match, "open", first, first + self.delay)
        return (yield from tx.upsert_waiting(turn))

    def push_due(self, tx: Transaction, *, deliveries: bool) -> Steps[list[Push]]:
        """What is due is pushed, or pushed again; `deliveries` too by a scheduler of the version before."""
        now = self.database.now
        pushes = []
        for turn in self._due(tx, now, ACTIVE if deliveries else frozenset({"composing"})):
            again = now + min(AGAIN * 2**turn.pushes, AGAIN_MAX)
            if turn.state == "typing" or turn.token is None or self.mistake is Mistake.EXPIRED_KEEPS_TOKEN:
                pushed = replace(turn, pushes=turn.pushes + 1, due_at=again)
            elif self.mistake is Mistake.EXPIRED_TO_QUEUED:
                pushed = replace(turn, state="queued", token=None, due_at=now + AGAIN)
            else:
                pushed = replace(turn, token=None, takeovers=turn.takeovers + 1, pushes=1, due_at=now + AGAIN)
            yield from tx.write(pushed)
            pushes.append(Push(turn.id, "deliver" if turn.state == "typing" else "compose"))
        yield
        for turn in self._due(tx, now, frozenset({"queued"})):
            if self.mistake is not Mistake.PUSH_ONCE:
                again = now + min(AGAIN * 2**turn.pushes, AGAIN_MAX)
                yield from tx.write(replace(turn, pushes=turn.pushes + 1, due_at=again))
                pushes.append(Push(turn.id, "compose"))
        yield
        room = WINDOW - sum(turn.state == "queued" for turn in tx.see_turns())
        for turn in self._due(tx, now, frozenset({"open"}))[: max(room, 0)]:
            yield from tx.write(replace(turn, state="queued", pushes=1, due_at=now + AGAIN))
            pushes.append(Push(turn.id, "compose"))
        return pushes

    def _due(self, tx: Transaction, now: float, states: frozenset[str]) -> list[Turn]:
        """Lock due turns that nobody holds, the longest due first."""
        due = sorted(tx.see_turns(), key=lambda turn: turn.due_at)
        return [
            turn for turn in due if turn.state in states and turn.due_at <= now and tx.try_lock((Turn, turn.id))
        ]  # fmt: skip

    def reset_pushes(self, tx: Transaction) -> Steps[None]:
        """Redis came back: whatever was pushed may be lost."""
        now = self.database.now
        for turn in tx.see_turns():
            pushed = turn.state == "queued" or (turn.state == "composing" and turn.token is None)
            if pushed and turn.pushes and turn.due_at > now and tx.try_lock((Turn, turn.id)):
                yield from tx.write(replace(turn, pushes=0, due_at=max(now, turn.retry_at)))

    def overtake(self, tx: Transaction) -> Steps[None]:
        """Replies under way make way for newer messages."""
        seen = sorted(tx.see_turns(), key=lambda turn: turn.match)
        yield
        for turn in seen:
            if turn.kind != "reply" or turn.state not in ACTIVE or not tx.try_lock((Turn, turn.id)):
                continue
            yield
            active = tx.turn(turn.id)
            waits = [other for other in tx.see_turns() if ("waiting", turn.match) in other.keys]
            yield
            for waiting in waits:
                locked = tx.turn(waiting.id) if tx.try_lock((Turn, waiting.id)) else None
                if self.mistake is Mistake.OVERTAKE_SEES_LITTLE:
                    active, locked = turn, waiting
                if (
                    locked
                    and locked.state in WAITING
                    and active
                    and active.state in ACTIVE
                    and self._may_supersede(active)
                ):
                    yield from self._supersede(tx, active, waiting.id)

    # What workers call.

    def claim(self, tx: Transaction, number: int, token: int, *, plain: bool = True) -> Steps[Claimed]:
        """A worker begins to compose."""
        tx.began = self.database.moment()
        early = frozenset(event.id for event in tx.see_events() if event.turn == number)
        turn = yield from self._lock_turn(tx, number)
        yield
        if turn is None:
            return Claimed("nothing")
        covers = turn.covers
        if turn.state != "composing" or turn.token != token:
            refusal = yield from self._take_over(tx, turn)
            if refusal:
                return Claimed(refusal)
            yield
            covers = frozenset(event.id for event in tx.see_events() if event.turn == turn.id)
            if self.mistake is Mistake.CLAIM_READS_FIRST:
                covers = early
        yield
        messages = frozenset(event.message for event in map(tx.event, covers) if event.message is not None)
        end = yield from self._make_way(tx, turn)
        if end:
            return Claimed(end)
        claimed = replace(
            turn, state="composing", token=token, covers=covers, pushes=0, retry_at=0.0, plain=plain,
            due_at=self.database.now + LEASE,
        )  # fmt: skip
        try:
            yield from tx.write(claimed)
        except UniqueViolation:
            if self.mistake is not Mistake.CLAIM_OVER_ACTIVE:
                return Claimed("busy")
            tx.turns[turn.id] = claimed
        return Claimed("claimed", messages)

    def _take_over(self, tx: Transaction, turn: Turn) -> Steps[str]:
        """Why a turn may not be claimed; nothing if it may."""
        early = turn.retry_at > self.database.now and self.mistake is not Mistake.CLAIM_BEFORE_RETRY
        if early or not self._may_claim(turn):
            return "nothing"
        if turn.state != "composing" and self._active(tx, turn.match):
            yield
            yield from self._found_busy(tx, turn)
            return "busy"
        if turn.kind == "reply":
            yield from self._take_along(tx, turn)
        return ""

    def _make_way(self, tx: Transaction, turn: Turn) -> Steps[str]:
        """How a turn ends instead of being composed; nothing if it does not."""
        if turn.kind == "initiation" and any(message.match == turn.match for message in tx.see_messages()):
            yield from self._end(tx, turn, "cancelled", "message")
            return "cancelled"
        again = turn.kind == "reply" and turn.state == "composing" and turn.token is None
        if again and self.mistake is not Mistake.RETRY_PASSES_BY:
            waiting = yield from self._newer_turn(tx, turn)
            if waiting is not None:
                yield from self._supersede(tx, turn, waiting)
                return "superseded"
        return ""

    def _may_supersede(self, turn: Turn) -> bool:
        if turn.state == "typing":
            return turn.merges < self.max_merges
        if turn.attempts + 1 >= MAX_ATTEMPTS:
            return False
        if turn.token is None:
            return self.max_merges > 0
        plain = turn.plain and self.mistake is not Mistake.PLAIN_OVERTAKEN
        return not plain and turn.overtakes < self.max_merges

    def _may_claim(self, turn: Turn) -> bool:
        if turn.state == "open":
            return self.mistake is Mistake.CLAIM_OPEN
        if turn.state == "composing":
            return turn.token is None or self.mistake is Mistake.CLAIM_OVER_TOKEN
        return turn.state == "queued"

    def _active(self, tx: Transaction, match: int) -> list[Turn]:
        if self.mistake is Mistake.CLAIM_OVER_ACTIVE:
            return []
        return [turn for turn in tx.see_turns() if turn.match == match and turn.state in ACTIVE]

    def _found_busy(self, tx: Transaction, turn: Turn) -> Steps[None]:
        tx.busy = turn.id
        held = not any(tx.try_lock((Turn, other.id)) for other in self._active(tx, turn.match))
        if held and self.mistake is not Mistake.BUSY_SLEEPS:
            yield from tx.write(replace(turn, due_at=min(turn.due_at, self.database.now + BUSY)))

    def _take_along(self, tx: Transaction, turn: Turn) -> Steps[None]:
        waits = any(
            other.match == turn.match and other.kind == "reply" and other.state in WAITING and other.id != turn.id
            for other in tx.see_turns()
        )
        if waits and self.mistake is not Mistake.TAKE_PAST_WAITING:
            return
        seen = [
            event.id for event in tx.see_events()
            if event.match == turn.match and event.message is not None and event.turn is None
        ]  # fmt: skip
        yield
        taken = yield from self._take(tx, seen)
        if len(taken) == len(seen) or self.mistake is Mistake.TAKE_IN_PARTS:
            for number in sorted(taken):
                yield from tx.write(replace(tx.event(number), turn=turn.id))

    def finish(self, tx: Transaction, number: int, token: int, draft: frozenset[int], pause: float) -> Steps[str]:
        """The draft is stored; without a pause a reply is delivered in the same call."""
        began = self.database.moment()
        turn = yield from self._lock_turn(tx, number)
        if turn is None or (turn.token != token and self.mistake is not Mistake.FINISH_UNFENCED):
            return "fenced"
        if turn.state == "composing":
            deliver_at = self.database.now + pause
            turn = replace(turn, state="typing", draft=draft, deliver_at=deliver_at, due_at=deliver_at, pushes=0)
            yield from tx.write(turn)
        elif turn.state not in {"typing", "answered"}:
            return "fenced"
        if turn.state == "answered" or (pause <= 0 and turn.kind == "reply"):
            return (yield from self.deliver(tx, number, began))
        if turn.kind == "reply":
            waiting = yield from self._newer_turn(tx, turn)
            if waiting is not None:
                yield from self._supersede(tx, turn, waiting)
                return "superseded"
        return "typing"

    def deliver(self, tx: Transaction, number: int, began: Moment | None = None) -> Steps[str]:
        """The reply is inserted and the turn ends, unless the conversation has moved on."""
        tx.began = began or self.database.moment()
        turn = tx.turn(number)
        yield
        if turn is not None and turn.kind == "initiation" and not (yield from self._lock_match(tx, turn)):
            return "later"
        turn = yield from self._lock_turn(tx, number)
        if turn is None or not self._may_deliver(turn):
            return "nothing"
        yield
        overtaken = yield from self._last_look(tx, turn)
        if overtaken:
            return overtaken
        yield
        if self.mistake is not Mistake.ANSWER_THEN_END:
            yield from self._end(tx, turn, "answered")
        for _ in range(self.slow):
            yield
        yield from tx.write(Message(self.database.next_id(), turn.match, turn.id, turn.draft))
        return "answered"

    def deliver_due(self, tx: Transaction) -> Steps[dict[int, str]]:
        """Deliver a set: each reply in a subtransaction, until a lock is not to be had."""
        outcomes: dict[int, str] = {}
        due = [turn for turn in tx.see_turns() if turn.state == "typing" and turn.due_at <= self.database.now]
        due = sorted(due, key=lambda turn: turn.due_at)[:SET]
        for turn in sorted(due, key=lambda turn: turn.match):
            yield
            saved = tx.savepoint()
            try:
                if turn.kind == "initiation" and self.mistake is not Mistake.OPENER_UNLOCKED:
                    yield from self._lock_match_event(tx, turn)
                if tx.try_lock((Turn, turn.id)):
                    outcomes[turn.id] = yield from self.deliver(tx, turn.id)
                    tx.looked[turn.id] = tx.began
            except (LockTimeout, UniqueViolation):
                tx.rollback_to(saved)
                break
        return outcomes

    def _lock_match(self, tx: Transaction, opener: Turn) -> Steps[bool]:
        """Take the lock of F1; without it the opener is due again a second later."""
        if self.mistake is Mistake.OPENER_UNLOCKED:
            return True
        try:
            yield from self._lock_match_event(tx, opener)
        except LockTimeout:
            locked = yield from self._lock_turn(tx, opener.id)
            if locked and locked.state == "typing":
                yield from tx.write(replace(locked, due_at=self.database.now + 1))
            return False
        return True

    def _lock_match_event(self, tx: Transaction, opener: Turn) -> Steps[None]:
        for event in tx.see_events():
            if event.match == opener.match and event.message is None:
                yield from tx.lock((Event, event.id), Mode.UPDATE)

    def _last_look(self, tx: Transaction, turn: Turn) -> Steps[str]:
        """What became of a turn that may not be delivered; nothing if it may."""
        if turn.kind == "initiation":
            written = any(message.match == turn.match for message in tx.see_messages())
            if written and self.mistake is not Mistake.OPENER_BLIND:
                yield from self._end(tx, turn, "cancelled", "message")
                return "cancelled"
        elif turn.state != "answered":
            covers = {event.id for event in tx.see_events() if event.turn == turn.id}
            if turn.covers != covers and self.mistake not in UNNOTICED:
                anew = replace(turn, state="composing", token=None, due_at=self.database.now, pushes=0)
                yield from tx.write(anew)
                return "nothing"
            yield
            waiting = None if self.mistake is Mistake.NO_LAST_LOOK else (yield from self._newer_turn(tx, turn))
            if waiting is not None:
                yield from self._supersede(tx, turn, waiting)
                return "superseded"
        return ""

    def _may_deliver(self, turn: Turn) -> bool:
        if self.mistake is Mistake.DELIVER_AGAIN and turn.state == "answered":
            return True
        if turn.state != "typing":
            return False
        if self.mistake is Mistake.ONE_TIME_FOR_BOTH:
            return turn.due_at <= self.database.now
        return self.mistake is Mistake.DELIVER_EARLY or turn.deliver_at <= self.database.now

    def _newer_turn(self, tx: Transaction, turn: Turn) -> Steps[int | None]:
        if not self._may_supersede(turn):
            return None
        ungrouped = [
            event.captured_at for event in tx.see_events()
            if event.match == turn.match and event.message is not None and event.turn is None
        ]  # fmt: skip
        yield
        if not ungrouped or self.mistake is Mistake.LOOK_AT_GROUPED_ONLY:
            waits = [other for other in tx.see_turns() if ("waiting", turn.match) in other.keys]
            if not waits:
                return None
            ungrouped = [self.database.now]
        return (yield from self._open_waiting(tx, turn.match, min(ungrouped)))

    def _supersede(self, tx: Transaction, turn: Turn, waiting: int) -> Steps[None]:
        tx.superseded[turn.id] = turn
        if self.mistake is not Mistake.EVENTS_LEFT_BEHIND:
            for event in tx.see_events():
                if event.turn == turn.id:
                    yield from tx.write(replace(event, turn=waiting))
        newer = tx.turn(waiting)
        if newer is not None and self.mistake is not Mistake.MERGES_FORGOTTEN:
            ended = turn.state == "composing" and turn.token is not None
            counts = ended and self.mistake is not Mistake.OVERTAKES_FORGOTTEN
            newer = replace(
                newer, merges=max(newer.merges, turn.merges + (turn.state == "typing")),
                overtakes=max(newer.overtakes, turn.overtakes + counts),
            )  # fmt: skip
        if newer is not None and self.mistake is not Mistake.FAILURES_FORGOTTEN:
            retry_at = max(newer.retry_at, turn.retry_at)
            newer = replace(
                newer, attempts=max(newer.attempts, turn.attempts), takeovers=max(newer.takeovers, turn.takeovers),
                retry_at=retry_at, due_at=max(newer.due_at, retry_at),
            )  # fmt: skip
        if newer is not None:
            yield from tx.write(newer)
        yield from self._end(tx, turn, "cancelled", "superseded")

    def fail(self, tx: Transaction, number: int, token: int, *, counts: bool) -> Steps[str]:
        """The responder raised, or is away."""
        turn = yield from self._lock_turn(tx, number)
        if turn is None or turn.state != "composing" or turn.token != token:
            return "fenced"
        attempts = turn.attempts + (counts or self.mistake is Mistake.AWAY_COUNTS)
        if attempts >= MAX_ATTEMPTS:
            yield from self._end(tx, turn, "dead")
            return "dead"
        retry_at = self.database.now + 1
        yield from tx.write(replace(turn, attempts=attempts, token=None, pushes=0, retry_at=retry_at, due_at=retry_at))
        return "failed"

    def renew(self, tx: Transaction, number: int, token: int) -> Steps[bool]:
        """The worker still composes."""
        turn = yield from self._lock_turn(tx, number)
        if turn is None or turn.state != "composing" or turn.token != token:
            return False
        yield from tx.write(replace(turn, due_at=self.database.now + LEASE))
        return True

    def end_answered(self, tx: Transaction, number: int) -> Steps[None]:
        """End the turn of a reply that was inserted before; only a planted mistake needs it."""
        turn = yield from self._lock_turn(tx, number)
        if turn is not None and turn.state == "typing":
            yield from self._end(tx, turn, "answered")

    def _lock_turn(self, tx: Transaction, number: int) -> Steps[Turn | None]:
        if tx.turn(number) is None:
            return None
        yield from tx.lock((Turn, number))
        return tx.turn(number)

    def _end(self, tx: Transaction, turn: Turn, state: str, reason: str = "") -> Steps[None]:
        yield from tx.write(replace(turn, state=state, reason=reason))
        for other in tx.see_turns():
            waits = other.kind == "reply" and other.match == turn.match and other.state == "queued"
            if waits and self.mistake is not Mistake.END_WAKES_NOBODY:
                yield from tx.lock((Turn, other.id))
                if (waiting := tx.turn(other.id)) and waiting.state == "queued":
                    yield from tx.write(replace(waiting, due_at=max(self.database.now, waiting.retry_at), pushes=0))
