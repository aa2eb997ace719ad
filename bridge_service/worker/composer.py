"""What a worker does with one turn: claim, compose, finish, deliver. Plain calls; the guards are in PostgreSQL.

Two kinds of errors rise from here: PostgreSQL is away or busy, or an operator has to act. Dramatiq's Retries tries
again soon, and if that fails the turn's due time brings it back. A responder's errors are written to the turn, and so
is what PostgreSQL refuses for a fault of one turn alone.

A plain responder is asked on the thread that claimed the turn. An async one is asked on the event loop of `Calls`, and
one of the `HANDS` settles the turn. What is done with an answer is the same for both: `_settle`.
"""

import random
import time
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID, uuid4

from dramatiq.middleware import Interrupt

from bridge_service.errors import (
    BridgeError,
    DatabaseBusy,
    DatabaseRefused,
    DatabaseUnavailable,
    OverLimit,
    ResponderUnavailable,
    StepRefused,
    type_of,
)
from bridge_service.machine.answers import Outcome
from bridge_service.machine.steps import Store
from bridge_service.process.telling import signal_of
from bridge_service.responders import Responder, clean_reply, storable
from bridge_service.telemetry.signals import (
    Distress,
    Emit,
    PostgresRefused,
    ResponderAway,
    TurnClaimed,
    TurnDead,
    TurnFailed,
    TurnTyping,
    database_trouble,
)
from bridge_service.turns import Reply, Task
from bridge_service.worker.calls import Answer, Call, Calls
from bridge_service.worker.leases import Leases
from bridge_service.worker.pacing import Pace, pause_before_delivery, pause_before_part, typing_seconds

AWAY_RETRY_SECONDS: Final = 5.0
AWAY_RETRY_MIN_SECONDS: Final = 1.0
AWAY_RETRY_MAX_SECONDS: Final = 60.0
"""When to ask a responder that is away again: its own wish within these bounds, or `AWAY_RETRY_SECONDS` without one.
fail.sql makes the wait longer as the turn grows older."""

HAND_IN_PAUSES = (1.0, 2.0, 4.0)
"""Seconds between the tries to hand in an answer while PostgreSQL is away or busy: together less than a lease, within
which the token settles what a lost try did (D3)."""

ERROR_LIMIT: Final = 500
"""Characters of an error that the turn's row keeps."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A turn that this process composes.

    Attributes:
      shows: whether the bot's indicator is shown while it types.
    """

    task: Task
    token: UUID
    pace: Pace
    shows: bool


class Composer:
    """Carries turns through their steps.

    Attributes:
      calls: runs the calls of an async responder; None: the responder is plain.
    """

    def __init__(
        self,
        store: Store,
        leases: Leases,
        responder: Responder,
        emit: Emit,
    ) -> None:
        self._store = store
        self._leases = leases
        self._responder = responder
        self._emit = emit
        self.calls: Calls | None = None
        self._random = random.Random()  # noqa: S311 - a human pace is no secret

    def compose(self, turn_id: int) -> None:
        """Claim a turn, write its reply and hand it on; then go on with the conversation's waiting turn, if pushed.

        With an async responder it returns as soon as the call is begun.
        """
        following: int | None = turn_id
        while following is not None:
            following = self._compose_one(following)

    def deliver(self, turn_id: int) -> None:
        """Deliver a turn's draft; then go on with the conversation's waiting turn, if pushed."""
        try:
            outcome = self._store.deliver(turn_id)
        except DatabaseRefused as error:
            outcome = self._store.unreadable(turn_id, "deliver", _describe(error))
        following = self._tell(turn_id, outcome, "deliver")
        if following is not None:
            self.compose(following)

    def _compose_one(self, turn_id: int) -> int | None:
        token = uuid4()
        outcome = self._claim(turn_id, token)
        self._tell_distress(turn_id, outcome)
        task = outcome.task
        if task is None:
            return self._tell(turn_id, outcome, "claim")
        self._emit(TurnClaimed(turn_id, task.match_id, task.kind, len(task.messages)))
        pace = Pace(**outcome.details["pace"], **outcome.details.get("part_pause", {}))
        turn = Claimed(task, token, pace, bool(outcome.details.get("bot_typing")))
        if self.calls is not None:
            call = Call(partial(self._responder, task), partial(self._over, self.calls, turn))
            self._leases.hold(turn_id, token, partial(self.calls.cancel, call))
            self.calls.begin(call)
            return None
        with self._leases.held(turn_id, token):
            answer = _asked(self._responder, task)
            for pause in HAND_IN_PAUSES:
                try:
                    return self._settle(turn, answer)
                except (DatabaseUnavailable, DatabaseBusy) as error:
                    self._trouble(error)
                    time.sleep(pause)
            return self._settle(turn, answer)

    def _over(self, calls: Calls, turn: Claimed, answer: Answer | None, tried: int = 0) -> None:
        """Settle a turn whose call is over, and go on; a call that was cancelled says nothing of its turn."""
        self._leases.call_over(turn.token)
        with ExitStack() as held:
            held.callback(self._leases.let_go, turn.token)
            try:
                following = None if answer is None else self._settle(turn, answer)
                if following is not None:
                    self.compose(following)
            except BridgeError as error:
                self._trouble(error)
                if tried < len(HAND_IN_PAUSES) and isinstance(error, DatabaseUnavailable | DatabaseBusy):
                    held.pop_all()
                    calls.later(HAND_IN_PAUSES[tried], partial(self._over, calls, turn, answer, tried + 1))

    def _trouble(self, error: BridgeError) -> None:
        if not isinstance(error, DatabaseBusy):
            self._emit(database_trouble(error))

    def _settle(self, turn: Claimed, answer: Answer) -> int | None:
        """Write to a turn what the responder returned or raised, and return the turn to go on with."""
        try:
            reply = clean_reply(answer.result(), turn.task.most_parts)
        except ResponderUnavailable as error:
            self._put_off(turn.token, turn.task, error)
            return None
        except OverLimit:
            return self._tell(turn.task.turn_id, self._store.hold(turn.task.turn_id, turn.token), "hold")
        except Interrupt:
            raise  # Dramatiq's own word to this thread, not the responder's
        except BaseException as error:  # noqa: BLE001 - whatever a responder raises is an attempt of its turn
            return self._failed(turn.token, turn.task, error)
        return self._hand_in(turn.token, turn.task, reply, turn.pace, shows=turn.shows)

    def _claim(self, turn_id: int, token: UUID) -> Outcome:
        try:
            return self._store.claim(turn_id, token, plain=self.calls is None)
        except DatabaseRefused as error:
            return self._claim_without_history(turn_id, token, error)

    def _claim_without_history(self, turn_id: int, token: UUID, refusal: DatabaseRefused) -> Outcome:
        # The unreadable row may be an old message. Every later turn of the conversation would fail on it too.
        try:
            outcome = self._store.claim(turn_id, token, lines=0, plain=self.calls is None)
        except DatabaseRefused as error:
            return self._store.unreadable(turn_id, "compose", _describe(error))
        if outcome.task is not None:
            self._emit(PostgresRefused(f"turn {turn_id} is answered without its history: {refusal}"))
        return outcome

    def _hand_in(self, token: UUID, task: Task, reply: Reply, pace: Pace, *, shows: bool) -> int | None:
        turn_id = task.turn_id
        draft, *others = reply.parts or ("",)
        # A silence takes no time.
        pause = pause_before_delivery([line.content for line in task.messages], draft, pace, self._random) * bool(draft)
        typing = typing_seconds(draft, pace.typing_speed_cps) if shows else 0.0
        rest = [(text, pause_before_part(text, pace, self._random)) for text in others]
        try:
            outcome = self._store.finish(
                turn_id, token, draft, pause=pause, action=reply.action, typing=typing, rest=rest
            )
        except DatabaseRefused as error:  # a database of another encoding than UTF8 cannot hold every reply
            return self._failed(token, task, error, refused=str(error) if error.by_text else None)
        if outcome.name == "typing" and pause <= 0:
            outcome = self._store.deliver(turn_id)  # an opener, whose delivery takes a lock of its own first
        elif outcome.name == "typing":
            self._emit(TurnTyping(turn_id, task.match_id, pause))
        return self._tell(turn_id, outcome, "finish")

    def _put_off(self, token: UUID, task: Task, error: ResponderUnavailable) -> None:
        retry = _pause(error.retry_after)
        outcome = self._store.fail(task.turn_id, token, _describe(error), retry=retry, counts=False)
        retry = float(outcome.details.get("retry", retry))
        self._emit(ResponderAway(task.turn_id, task.match_id, type_of(error), retry))

    def _failed(self, token: UUID, task: Task, error: BaseException, refused: str | None = None) -> int | None:
        retry = float(2**task.attempts)
        outcome = self._store.fail(task.turn_id, token, _describe(error), retry=retry, counts=True, refused=refused)
        if outcome.name == "failed":
            self._emit(TurnFailed(task.turn_id, task.match_id, type_of(error), outcome.details["attempts"]))
        elif outcome.name == "dead":
            self._emit(TurnDead(task.turn_id, task.match_id, type_of(error)))
        return outcome.next_turn

    def _tell_distress(self, turn_id: int, outcome: Outcome) -> None:
        event = outcome.details.get("distress")
        if event is not None:
            self._emit(Distress(turn_id, outcome.details["match_id"], event))

    def _tell(self, turn_id: int, outcome: Outcome, step: str) -> int | None:
        signal = signal_of(turn_id, outcome, step)
        if signal is not None:
            self._emit(signal)
        return outcome.next_turn


def _asked(responder: Responder, task: Task) -> Answer:
    """Ask a plain responder, and keep what it raises."""
    answer: Answer = Future()
    try:
        answer.set_result(responder(task))
    except Interrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - as above
        answer.set_exception(error)
    return answer


def _pause(wanted: object) -> float:
    """Return the seconds until a responder is asked again: `wanted` may be a header's text, or nothing usable."""
    try:
        seconds = float(wanted)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        seconds = 0.0
    # A time that has passed, or no number, must not make the worker ask without a pause.
    return min(max(AWAY_RETRY_MIN_SECONDS, seconds or AWAY_RETRY_SECONDS), AWAY_RETRY_MAX_SECONDS)


def _describe(error: BaseException) -> str:
    """Return what the turn's row keeps of an error for the operator, as PostgreSQL can hold it."""
    try:
        text = f"{type(error).__name__}: {error.words if isinstance(error, StepRefused) else error}"
    except Interrupt:
        raise
    except BaseException:  # noqa: BLE001 - an exception that cannot tell itself still has a type
        text = type(error).__name__
    return storable(text, ERROR_LIMIT)
