"""What travels through Redis: a turn's id, and which of the two actors it is for."""

import json
from typing import Any, Final

from dramatiq import Message

from bridge_service.errors import BadMessage

QUEUE_NAME: Final = "bot_messages"
ACTOR_NAMES: Final = frozenset({"compose", "deliver"})

_BODY_LIMIT: Final = 10_000


def message_for(step: str, turn_id: int) -> Message[Any]:
    """Make the message that asks a worker for a turn's step (`compose` or `deliver`)."""
    options = {"redis_message_id": f"{step}:{turn_id}"}
    return Message(queue_name=QUEUE_NAME, actor_name=step, args=(turn_id,), kwargs={}, options=options)


def redis_id(message: Message[Any]) -> str:
    """Return the id of a message in Redis: the same for each push of a step, so Redis holds it once at most."""
    return str(message.options.get("redis_message_id") or f"{message.actor_name}:{message.args[0]}")


def rebuild(body: bytes, queue_name: str) -> Message[Any]:
    """Read a message from Redis, believing nothing except the turn's id and which of our actors it is for (R2).

    An intruder in Redis could otherwise name a foreign queue, which kills the worker's thread, or a pipe target.

    Raises:
      BadMessage: there is no turn id, or the actor is not ours.
    """
    if len(body) > _BODY_LIMIT:
        raise BadMessage(f"a message of {len(body)} bytes")
    try:
        data = json.loads(body)
        step, [turn_id] = data["actor_name"], data["args"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise BadMessage("not a message of ours") from None
    if not isinstance(step, str) or step not in ACTOR_NAMES:
        raise BadMessage("it names an unknown actor")
    if type(turn_id) is not int or not 0 < turn_id < 2**63:
        raise BadMessage("its argument is not a turn's id")
    return message_for(step, turn_id).copy(queue_name=queue_name)
