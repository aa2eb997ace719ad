"""`why`: the story of one message."""

from collections.abc import Iterator, Mapping
from typing import Any

from bridge_service.errors import ResponderUnavailable
from bridge_service.machine.ledger import open_ledger
from bridge_service.operate.commands.stories import parts_of, pause_words
from bridge_service.operate.output import Output, counted, short_time
from bridge_service.settings import Settings

SET_ASIDE = "set aside"

_HELD = {
    "paused": "the bot is paused here",
    "hours": "in the bot's quiet hours",
    "waking": "the bot has just woken and answers in the order of arrival",
    "limit_replies": "over the limit of replies in an hour (limit_replies)",
}
_BY_A_HUMAN = ", which a human wrote in the bot's name"
_UNKNOWN = (
    "no event knows this message: it is not a person's to a bot, or older than the installation or than RETENTION_DAYS,"
    " or it was not captured (`check` looks for the cause, `replay` captures what was missed)"
)


def run(settings: Settings, output: Output, message_id: str) -> bool:
    """Return whether the message is known."""
    with open_ledger(settings.database_url, "why") as ledger:
        story = ledger.why(message_id)
    if story is None:
        output.document({"message_id": message_id, "state": None})
        output.complain(f"{message_id}: {_UNKNOWN}")
        return False
    state = _state(story)
    output.document({"message_id": message_id, "state": state, **story})
    output.say(f"{message_id} {state}", "bold")
    output.say(f"conversation {story['match_id']}, from {story['sender_id']} to bot {story['bot_id']}")
    # What is still to come has no time, and stands last.
    steps = sorted(_steps(story), key=lambda step: step[0] or "9")
    output.table(["when (UTC)", "what"], steps)
    return True


def _state(story: Mapping[str, Any]) -> str:
    if story["error"] is not None:
        return SET_ASIDE
    return "open" if story["turn"] is None else str(story["turn"]["state"])


def _steps(story: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Tell each step with its time; '' stands for a step to come, and for one without a time."""
    human = _BY_A_HUMAN if story["kind"] == "human" else ""
    yield (
        short_time(story["captured_at"]),
        f"captured as event {story['event_id']}{human}; the app dates it {story['created_at']}",
    )
    if story["error"] is not None:
        yield "", f"set aside, because grouping it failed: {story['error']}"
    elif story["turn"] is None:
        yield "", "waits to be grouped: is a scheduler running?"
    for turn in story["earlier"]:
        yield from _steps_of(turn)
    if story["turn"] is not None:
        yield from _steps_of(story["turn"])
    for pause in story["pauses"]:
        yield short_time(pause["since"]), pause_words(pause)


def _steps_of(turn: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    name = f"turn {turn['turn_id']}"
    yield short_time(turn["opened_at"]), f"{name}: opened{_merged(turn)}"
    if turn["queued_at"]:
        yield short_time(turn["queued_at"]), f"{name}: pushed to the queue"
    if turn["claimed_at"]:
        yield short_time(turn["claimed_at"]), f"{name}: claimed by a worker{_failures(turn)}"
    yield from parts_of(turn)
    if turn["state"] == "typing":
        due = turn["due_at"] if turn["parts"] else turn["deliver_at"]
        yield "", f"{name}: typing, to be delivered at {short_time(due)}"
    elif turn["state"] == "answered":
        messages = counted(len(turn["message_ids"]), "message")
        words = turn["reply_message_id"] or "silence, as its responder chose"
        left = f"; the bot left: `conversations show {turn['match_id']}`" if turn["action"] == "leave" else ""
        cut = f"; the rest was withheld ({turn['reason']})" if turn["reply_message_id"] and turn["reason"] else ""
        yield short_time(turn["answered_at"]), f"{name}: answered {messages} with {words}{cut}{left}"
    elif turn["state"] == "cancelled":
        see = f"; `conversations show {turn['match_id']}`" if turn["reason"] in {"left", "taken_over"} else ""
        human = ", a human answered in the bot's name" if turn["reason"] == "taken_over" else ""
        yield short_time(turn["ended_at"]), f"{name}: cancelled, {turn['reason']}{human}{see}"
    elif turn["state"] == "dead":
        yield short_time(turn["ended_at"]), f"{name}: dead, {turn['last_error']}; see `dead show {turn['turn_id']}`"
    else:
        yield "", f"{name}: {_waits_for(turn)}"


def _waits_for(turn: Mapping[str, Any]) -> str:
    """Say what an open, queued or composing turn waits for, and until when."""
    until = short_time(turn["due_at"])
    if turn["leased"]:
        return f"composing, a worker has it; its lease ends at {until} unless the worker renews it"
    if turn["state"] == "composing" and turn["last_error"] and turn["due_at"] == turn["retry_at"]:
        # A responder that is away costs no attempt.
        away = not turn["attempts"] or turn["last_error"].startswith(ResponderUnavailable.__name__)
        what = "the responder is away" if away else "the attempt failed"
        return f"composing, {what} ({turn['last_error']}); next try at {until}"
    if turn["held"]:
        cause = _HELD.get(turn["held"], f"over today's limit ({turn['held']})")
        return f"held, {cause}, answered from {until} on"
    hint = f", pushed {turn['pushes']} times in vain: does `status` count a live worker?" if turn["pushes"] > 1 else ""
    return f"{turn['state']}, next push at {until}{hint}"


def _merged(turn: Mapping[str, Any]) -> str:
    return f", in place of {counted(turn['merges'], 'superseded turn')}" if turn["merges"] else ""


def _failures(turn: Mapping[str, Any]) -> str:
    parts = []
    if turn["attempts"]:
        parts.append(f"{counted(turn['attempts'], 'failed attempt')}, the last: {turn['last_error']}")
    if turn["takeovers"]:
        parts.append(f"taken over {counted(turn['takeovers'], 'time')}")
    return f" ({'; '.join(parts)})" if parts else ""
