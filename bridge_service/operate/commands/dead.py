"""`dead`: the turns that were given up, and what the operator decides about each."""

from collections.abc import Mapping
from typing import Any

from bridge_service.machine.ledger import Ledger, open_ledger
from bridge_service.operate.output import Output, counted, short_time
from bridge_service.settings import Settings

_TIMES = ("opened_at", "queued_at", "claimed_at", "ended_at")
_NUMBERS = ("attempts", "takeovers", "merges", "pushes")


def list_all(settings: Settings, output: Output) -> bool:
    """List the dead turns; return True, also if there are some."""
    with open_ledger(settings.database_url, "dead") as ledger:
        turns = list(ledger.dead())
    output.document({"dead": turns})
    if not turns:
        output.say("No turn is dead.", "green")
        return True
    columns = ["turn", "kind", "conversation", "messages", "failed", "died (UTC)", "error"]
    output.table(columns, [_row(turn) for turn in turns])
    return True


def _row(turn: Mapping[str, Any]) -> list[object]:
    messages, failed = len(turn["message_ids"]), turn["attempts"] + turn["takeovers"]
    names = [turn["turn_id"], turn["kind"], turn["match_id"]]
    return [*names, messages, failed, short_time(turn["ended_at"]), turn["last_error"]]


def show(settings: Settings, output: Output, turn_id: int) -> bool:
    """Return whether there is such a dead turn."""
    with open_ledger(settings.database_url, "dead") as ledger:
        turn = ledger.turn(turn_id)
    state = None if turn is None else turn["state"]
    if turn is None or state != "dead":
        output.document({"turn_id": turn_id, "state": state})
        output.complain(_not_dead(turn_id, state))
        return False
    output.document(turn)
    output.say(f"turn {turn_id}, {turn['kind']}, dead: {turn['last_error']}", "bold")
    output.say(f"conversation {turn['match_id']}, bot {turn['bot_id']}")
    rows: list[tuple[str, object]] = [(name, short_time(turn[name])) for name in _TIMES]
    rows += [(name, turn[name]) for name in _NUMBERS]
    rows += [("message", message_id) for message_id in turn["message_ids"]]
    output.table(["", ""], rows)
    output.say(f"`dead retry {turn_id}` lets it try again, `dead drop {turn_id}` gives it up.")
    return True


def retry(settings: Settings, output: Output, turn_id: int | None) -> bool:
    """Let one dead turn, or all if `turn_id` is None, try again; return whether each of them does."""
    with open_ledger(settings.database_url, "dead") as ledger:
        if turn_id is not None:
            return _retry(ledger, output, turn_id)
        turns = [turn["turn_id"] for turn in ledger.dead()]
        results = [_retry(ledger, output, each) for each in turns]
    output.say(f"{counted(sum(results), 'turn')} of {len(turns)} will be tried again.")
    return all(results)


def _retry(ledger: Ledger, output: Output, turn_id: int) -> bool:
    decision = ledger.retry(turn_id)
    if decision.outcome == "retried" and decision.turn_id == turn_id:
        output.say(f"turn {turn_id}: queued again")
    elif decision.outcome == "retried":
        output.say(f"turn {turn_id}: its messages wait in turn {decision.turn_id} now")
    elif decision.outcome == "cancelled":
        output.say(f"turn {turn_id}: cancelled, because its conversation has a message by now")
    else:
        output.complain(_not_dead(turn_id, decision.state))
        return False
    return True


def drop(settings: Settings, output: Output, turn_id: int) -> bool:
    """Return whether the turn was dead and is given up now."""
    with open_ledger(settings.database_url, "dead") as ledger:
        decision = ledger.drop(turn_id)
    if decision.outcome != "dropped":
        output.complain(_not_dead(turn_id, decision.state))
        return False
    output.say(f"turn {turn_id}: dropped")
    return True


def _not_dead(turn_id: int, state: str | None) -> str:
    return f"there is no turn {turn_id}" if state is None else f"turn {turn_id} is not dead but {state}"
