"""What there is to tell of a step: the signals that the outcomes of claim, finish and deliver become."""

from collections.abc import Mapping
from typing import Any, Final

from bridge_service.machine.answers import Outcome
from bridge_service.telemetry.signals import (
    DuplicatePrevented,
    PostgresRefused,
    RepliesLimited,
    ReplyDelivered,
    ReplyInterrupted,
    Signal,
    TurnCancelled,
    TurnDead,
    TurnFailed,
    TurnHeld,
    TurnPaused,
    TurnQuiet,
    TurnSilent,
    TurnSuperseded,
)
from bridge_service.turns import Kind

_ENDED: Final = frozenset({"answered", "cancelled", "dead"})
_BEYOND: Final = {
    "claim": _ENDED | {"composing", "typing"},
    "finish": _ENDED | {"composing"},
    "deliver": _ENDED | {"composing"},
}
"""In which states of a turn a step has nothing left to do."""


def signal_of(turn_id: int, outcome: Outcome, step: str) -> Signal | None:  # noqa: C901, PLR0911 - one case an outcome
    """Return what there is to tell of a `step` (claim, finish or deliver); None if it found nothing to do."""
    details = outcome.details
    if _found_done(outcome, step):
        return DuplicatePrevented(turn_id, step)
    match outcome.name:
        case "answered" if details["message_id"] is None:
            return TurnSilent(turn_id, details["match_id"], Kind(details["kind"]), details["covered"] or 0)
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
        case "interrupted":
            return ReplyInterrupted(
                turn_id, details["match_id"], details["reason"], details["said"], details["withheld"]
            )
        case "superseded":
            return TurnSuperseded(turn_id, details["match_id"], details["merges"])
        case "cancelled":
            return TurnCancelled(turn_id, details["match_id"], Kind(details["kind"]), details["reason"])
        case "held":
            return _held(turn_id, details)
        case "failed":
            return TurnFailed(turn_id, details["match_id"], _error_of(details), details["attempts"])
        case "later" if "error" in details:
            names = details.get("named", "").removeprefix(details["error"])
            return PostgresRefused(f"replies cannot be inserted{names} (SQLSTATE {details['error']})")
        case "dead":
            return TurnDead(turn_id, details["match_id"], _error_of(details))
        case _:
            return None


def _held(turn_id: int, details: Mapping[str, Any]) -> Signal:
    match details["cause"]:
        case "paused":
            return TurnPaused(turn_id, details["match_id"], details["until"])
        case "hours":
            return TurnQuiet(turn_id, details["match_id"], details["until"])
        case "limit_replies":
            return RepliesLimited(turn_id, details["match_id"], details["until"])
        case cause:
            return TurnHeld(turn_id, details["match_id"], cause, details["until"])


def _found_done(outcome: Outcome, step: str) -> bool:
    """Tell whether a step was done already, or is another worker's. A turn too early or unknown is neither."""
    if outcome.name == "fenced":
        return True
    if outcome.name not in {"nothing", "answered"} or not (step == "claim" or outcome.details.get("again")):
        return False
    return not outcome.details.get("early") and outcome.details.get("state") in _BEYOND[step]


def _error_of(details: Mapping[str, Any]) -> str:
    """Return what may be logged of a failed step: its kind, and the names that PostgreSQL gives to what refused it."""
    return ": ".join(details[key] for key in ("error", "named") if key in details)
