"""What `why` and `conversations show` tell of a turn's parts and of a pause, in the same words."""

from collections.abc import Iterator, Mapping
from typing import Any

from bridge_service.operate.output import short_time


def parts_of(turn: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Tell the messages of a reply that has several, each with the time when it was or will be delivered."""
    for part in turn["parts"]:
        name = f"turn {turn['turn_id']}, message {part['number']} of {len(turn['parts'])}"
        if part["delivered_at"]:
            yield short_time(part["delivered_at"]), f"{name}: delivered as {part['message_id']}"
        elif turn["state"] == "typing":
            yield "", f"{name}: planned for {short_time(part['deliver_at'])}"
        else:
            yield short_time(turn["ended_at"]), f"{name}: withheld"


def pause_words(pause: Mapping[str, Any]) -> str:
    """Say who ordered a pause, and until when."""
    if pause["cause"] == "left":
        return f"left, by turn {pause['turn_id']}; no message is answered until `resume`"
    asked = f"{pause['who']} on the console" if pause["who"] else "an operator or the app"
    who = "a human wrote in the bot's name" if pause["cause"] == "human" else f"paused by {asked}"
    of = ", for all conversations of this bot" if pause["bot_id"] else ""
    until = short_time(pause["until"]) if pause["until"] not in {None, "infinity"} else "`resume`"
    return f"{who}{of}; the bot is silent until {until}"
