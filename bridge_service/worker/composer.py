"""What a worker does with one turn: claim, compose, finish, deliver. Plain calls; the guards are in PostgreSQL.

Errors that rise from here mean that PostgreSQL is away or that a right is missing: Dramatiq's Retries tries again soon,
and if that fails the turn's due time brings it back. A responder's errors never rise, nor what PostgreSQL refuses for a
fault of one turn alone; they are written to the turn.
"""

import random
import re
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID, uuid4

from dramatiq.middleware import Interrupt

from bridge_service.errors import DatabaseRefused, ResponderUnavailable, RightMissing, type_of
from bridge_service.machine.steps import Outcome, Store
from bridge_service.responders import Responder, clean_reply, storable
from bridge_service.telemetry.signals import (
    DuplicatePrevented,
    Emit,
    Event,
    PostgresRefused,
    ReplyDelivered,
    ResponderAway,
    TurnCancelled,
    TurnClaimed,
    TurnDead,
    TurnFailed,
    TurnSuperseded,
    TurnTyping,
)
from bridge_service.turns import Kind, Task
from bridge_service.worker.leases import Leases
from bridge_service.worker.pacing import Pace, pause_before_delivery

AWAY_RETRY_SECONDS: Final = 5.0
AWAY_RETRY_MIN_SECONDS: Final = 1.0
AWAY_RETRY_MAX_SECONDS: Final = 60.0
"""How soon a responder that is away is asked again at the earliest: unless it says when, and whatever it says. The
longer a turn has waited, the later it asks; see fail.sql."""

ERROR_LIMIT: Final = 500
"""Characters of an error that the turn's row keeps."""

_ENDED: Final = frozenset({"answered", "cancelled", "dead"})
_BEYOND: Final = {
    "claim": _ENDED | {"composing", "typing"},
    "finish": _ENDED | {"composing"},
    "deliver": _ENDED | {"composing"},
}
"""In which states of a turn a step has nothing left to do."""


class Composer:
    """Carries turns through their steps."""

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
        self._random = random.Random()  # noqa: S311 - a human pace is no secret

    def compose(self, turn_id: int) -> None:
        """Claim a turn, write its reply and hand it on; then its conversation's next turn, if that waits already."""
        following: int | None = turn_id
        while following is not None:
            following = self._compose_one(following)

    def deliver(self, turn_id: int) -> None:
        """Deliver a turn's draft, then go on with the conversation's next turn, if that waits already."""
        try:
            outcome = self._store.deliver(turn_id)
        except RightMissing:
            raise
        except DatabaseRefused as error:
            outcome = self._store.unreadable(turn_id, "deliver", _describe(error))
        following = self._tell(turn_id, outcome, "deliver")
        if following is not None:
            self.compose(following)

    def _compose_one(self, turn_id: int) -> int | None:
        token = uuid4()
        outcome = self._claim(turn_id, token)
        task = outcome.task
        if task is None:
            return self._tell(turn_id, outcome, "claim")
        self._emit(TurnClaimed(turn_id, task.match_id, task.kind, len(task.messages)))
        with self._leases.held(turn_id, token):
            try:
                draft = clean_reply(self._responder(task))
            except ResponderUnavailable as error:
                retry = _pause(error.retry_after)
                outcome = self._store.fail(turn_id, token, _describe(error), retry=retry, counts=False)
                retry = float(outcome.details.get("retry", retry))
                self._emit(ResponderAway(turn_id, task.match_id, type_of(error), retry))
                return None
            except Interrupt:
                raise  # Dramatiq's own word to this thread, not the responder's
            except BaseException as error:  # noqa: BLE001 - whatever a responder raises is an attempt of its turn
                return self._failed(turn_id, token, task, error)
            pace = Pace(**outcome.details["pace"])
            pause = pause_before_delivery([line.content for line in task.messages], draft, pace, self._random)
            try:
                outcome = self._store.finish(turn_id, token, draft, pause=pause)
            except RightMissing:
                raise
            except DatabaseRefused as error:  # a database of another encoding than UTF8 cannot hold every reply
                return self._failed(turn_id, token, task, error, refused=_refusal(error))
        if outcome.name == "typing" and pause <= 0:
            outcome = self._store.deliver(turn_id)  # an opener, whose delivery takes a lock of its own first
        elif outcome.name == "typing":
            self._emit(TurnTyping(turn_id, task.match_id, pause))
        return self._tell(turn_id, outcome, "finish")

    def _claim(self, turn_id: int, token: UUID) -> Outcome:
        try:
            return self._claim_readable(turn_id, token)
        except RightMissing:
            raise
        except DatabaseRefused as error:
            return self._store.unreadable(turn_id, "compose", _describe(error))

    def _claim_readable(self, turn_id: int, token: UUID) -> Outcome:
        try:
            return self._store.claim(turn_id, token)
        except RightMissing:
            raise
        except DatabaseRefused as error:
            # What cannot be read may be an old line. It is history to each later turn of its conversation, and none of
            # them shall die of it: better answered without any.
            outcome = self._store.claim(turn_id, token, lines=0)
            if outcome.task is not None:
                self._emit(PostgresRefused(f"turn {turn_id} is answered without its history: {error}"))
            return outcome

    def _failed(
        self, turn_id: int, token: UUID, task: Task, error: BaseException, refused: str | None = None
    ) -> int | None:
        outcome = self._store.fail(
            turn_id, token, _describe(error), retry=float(2**task.attempts), counts=True, refused=refused
        )
        if outcome.name == "failed":
            self._emit(TurnFailed(turn_id, task.match_id, type_of(error), outcome.details["attempts"]))
        elif outcome.name == "dead":
            self._emit(TurnDead(turn_id, task.match_id, type_of(error)))
        return outcome.next_turn

    def _tell(self, turn_id: int, outcome: Outcome, stage: str) -> int | None:
        found_done = _found_done(outcome, stage)
        event = DuplicatePrevented(turn_id, stage) if found_done else _event(turn_id, outcome)
        if event is not None:
            self._emit(event)
        return outcome.next_turn


def _found_done(outcome: Outcome, stage: str) -> bool:
    """Tell whether a step was done already, or is another worker's; what came too early or is unknown is neither."""
    if outcome.name == "fenced":
        return True
    if outcome.name not in {"nothing", "answered"} or not (stage == "claim" or outcome.details.get("again")):
        return False
    if outcome.details.get("early"):
        return False
    return outcome.details.get("state") in _BEYOND[stage]


def _event(turn_id: int, outcome: Outcome) -> Event | None:  # noqa: PLR0911 - one case an outcome
    """What there is to tell of a step; nothing of one that found nothing to do."""
    details = outcome.details
    match outcome.name:
        case "answered":
            return ReplyDelivered(
                turn_id,
                details["match_id"],
                details["message_id"],
                Kind(details["kind"]),
                details["characters"],
                details["covered"] or 0,
                details["late"],
            )
        case "superseded":
            return TurnSuperseded(turn_id, details["match_id"], details["merges"])
        case "cancelled":
            return TurnCancelled(turn_id, details["match_id"], Kind(details["kind"]), details["reason"])
        case "failed":
            return TurnFailed(turn_id, details["match_id"], _error_of(details), details["attempts"])
        case "later" if "error" in details:
            names = details.get("named", "").removeprefix(details["error"])
            return PostgresRefused(f"replies cannot be inserted{names} (SQLSTATE {details['error']})")
        case "dead":
            return TurnDead(turn_id, details["match_id"], _error_of(details))
        case _:
            return None


def _refusal(error: DatabaseRefused) -> str | None:
    """Why PostgreSQL refused a draft, if that was for a character that its encoding lacks."""
    return str(error) if re.search(r"SQLSTATE (22P05|22021)", str(error)) else None


def _error_of(details: Mapping[str, Any]) -> str:
    """What may be logged of a failed step: its kind, and the names that PostgreSQL gives to what refused it."""
    return ": ".join(details[key] for key in ("error", "named") if key in details)


def _pause(wanted: object) -> float:
    """How long a responder wants to be left alone, in seconds: a header's text, too, and within what is sensible."""
    try:
        seconds = float(wanted)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        seconds = 0.0
    # A time that has passed, or no number, must not make it ask without a pause.
    return min(max(AWAY_RETRY_MIN_SECONDS, seconds or AWAY_RETRY_SECONDS), AWAY_RETRY_MAX_SECONDS)


def _describe(error: BaseException) -> str:
    """What the turn's row keeps of an error, for the operator: what can be told of it, as PostgreSQL can hold it."""
    try:
        text = f"{type(error).__name__}: {error.words if isinstance(error, DatabaseRefused) else error}"
    except Interrupt:
        raise
    except BaseException:  # noqa: BLE001 - an exception that cannot tell itself still has a type
        text = type(error).__name__
    return storable(text, ERROR_LIMIT)
