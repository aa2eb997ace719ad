"""`conversations`: where one conversation stands, and how its bot falls silent there and answers again."""

from datetime import datetime

from bridge_service.machine.ledger import open_ledger
from bridge_service.operate.commands.stories import parts_of, pause_words
from bridge_service.operate.output import Output, counted, short_time
from bridge_service.settings import Settings


def show(settings: Settings, output: Output, match_id: str) -> bool:
    """Return whether the bridge knows the conversation."""
    with open_ledger(settings.database_url, "conversations") as ledger:
        story = ledger.conversation(match_id)
    if story is None:
        output.document({"match_id": match_id, "state": None})
        output.complain(f"{match_id}: no match with this id has exactly one bot, and nothing waits for an answer there")
        return False
    output.document(story)
    output.say(f"{match_id} {story['state']}", "bold")
    if story["bot_id"] is None:
        output.say("the app has no such conversation between a person and a bot any more")
    else:
        output.say(f"bot {story['bot_id']}")
    rows = [(short_time(pause["since"]), pause_words(pause)) for pause in story["pauses"]]
    if story["ungrouped"]:
        rows.append(("", f"{counted(story['ungrouped'], 'message')} not grouped yet"))
    for turn in story["turns"]:
        messages = counted(len(turn["message_ids"]), "message")
        rows.append(
            (short_time(turn["opened_at"]), f"turn {turn['turn_id']}: {turn['kind']}, {turn['state']}, {messages}")
        )
        rows.extend(parts_of(turn))
    if rows:
        output.table(["when (UTC)", "what"], rows)
    return True


def pause(settings: Settings, output: Output, match_id: str, until: datetime | None) -> bool:
    """Return whether the conversation has a bot, which is silent from now on until an aware time, or until `resume`."""
    with open_ledger(settings.database_url, "conversations") as ledger:
        paused = ledger.pause(match_id, until)
    output.document({"match_id": match_id, "paused": paused, "until": until.isoformat() if paused and until else None})
    if paused:
        output.say(f"{match_id}: the bot is silent until {until.isoformat() if until else '`conversations resume`'}")
    else:
        output.complain(f"{match_id}: no match with this id has exactly one bot")
    return paused


def resume(settings: Settings, output: Output, match_id: str) -> bool:
    """Return whether the conversation was paused and is not any more."""
    with open_ledger(settings.database_url, "conversations") as ledger:
        resumed = ledger.resume(match_id)
    output.document({"match_id": match_id, "resumed": resumed})
    if resumed:
        output.say(f"{match_id}: the bot answers there again; what was cancelled as `left` stays unanswered")
    else:
        output.complain(f"{match_id}: the bot had not left this conversation, and nothing paused it there")
    return resumed
