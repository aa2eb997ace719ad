"""Reads notifications. Any role of the database may send any, so only ids of the right form are taken from them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bridge_service.errors import BadMessage

MESSAGE_CHANNEL: Final = "bot_events"
MATCH_CHANNEL: Final = "new_match"

_REQUIRED: Final = {
    MESSAGE_CHANNEL: ("match_id", "bot_id", "sender_id", "message_id"),
    MATCH_CHANNEL: ("id", "user1_id", "user2_id"),
}

# Python's UUID also reads other forms, with hyphens anywhere and white space.
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Notification:
    """A notification of the contract's shape. `message_id` is None for a new match."""

    channel: str
    match_id: str
    message_id: str | None
    payload: Mapping[str, Any]


def parse(channel: str, payload: str) -> Notification:
    """Read a payload of `bot_events` or `new_match`.

    Raises:
      BadMessage: the payload is not of the contract's shape; the text says why, and quotes nothing.
    """
    try:
        data = json.loads(payload)
    except (ValueError, RecursionError):
        raise BadMessage("the payload is not JSON") from None
    if not isinstance(data, dict):
        raise BadMessage("the payload is not a JSON object")
    for name in _REQUIRED[channel]:
        if not _is_uuid(data.get(name)):
            raise BadMessage(f"`{name}` is not a uuid")
    if channel == MESSAGE_CHANNEL:
        return Notification(channel, data["match_id"], data["message_id"], data)
    return Notification(channel, data["id"], None, data)


def _is_uuid(value: object) -> bool:
    return isinstance(value, str) and _UUID.fullmatch(value) is not None
