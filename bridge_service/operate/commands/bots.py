"""`bots`: which policy holds for each bot, and which row of `bridge.bots` sets it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from bridge_service.machine.ledger import open_ledger
from bridge_service.operate.output import Output
from bridge_service.settings import Settings
from bridge_service.settings.overrides import fault_of, value_text
from bridge_service.settings.policy import COLUMNS, Value

DEFAULT: Final = "default"


def list_all(settings: Settings, output: Output) -> bool:
    """List the rows of policy."""
    with open_ledger(settings.database_url, "bots") as ledger:
        rows = ledger.bots()
    output.document({"bots": rows})
    output.table(["bot", "sets"], [(row["bot"], _values(row["values"]) or "nothing") for row in rows])
    return True


def show(settings: Settings, output: Output, bot: str) -> bool:
    """Show each value that holds for a bot, and where it comes from."""
    with open_ledger(settings.database_url, "bots") as ledger:
        policy = ledger.bot(None if bot == DEFAULT else bot)
    _tell(output, bot, policy)
    return True


def set_values(settings: Settings, output: Output, bot: str, values: Mapping[str, Value | None]) -> bool:
    """Set values for a bot and show what holds now; return whether bridge.bots took them."""
    bot_id = None if bot == DEFAULT else bot
    with open_ledger(settings.database_url, "bots") as ledger:
        constraint = ledger.set_bot(bot_id, values)
        if constraint is not None:
            fault = fault_of(constraint)
            output.complain(fault)
            output.document({"error": fault})
            return False
        policy = ledger.bot(bot_id)
    _tell(output, bot, policy)
    return True


def pause(settings: Settings, output: Output, bot: str, until: datetime | None) -> bool:
    """Let a bot be silent in all its conversations until an aware time, or until `resume`."""
    with open_ledger(settings.database_url, "bots") as ledger:
        ledger.pause_bot(bot, until)
    output.document({"bot": bot, "paused": True, "until": until and until.isoformat()})
    output.say(
        f"{bot}: silent until {until.isoformat() if until else '`bots resume`'}; then it answers what was written"
    )
    return True


def resume(settings: Settings, output: Output, bot: str) -> bool:
    """Return whether the bot was paused and is not any more."""
    with open_ledger(settings.database_url, "bots") as ledger:
        resumed = ledger.resume_bot(bot)
    output.document({"bot": bot, "resumed": resumed})
    if resumed:
        output.say(
            f"{bot}: the bot answers again, at the next sweep, except in conversations that are paused themselves"
        )
    else:
        output.complain(f"{bot}: this bot was not paused")
    return resumed


def _tell(output: Output, bot: str, policy: Mapping[str, Mapping[str, Any]]) -> None:
    output.document({"bot": bot, "policy": policy})
    rows = [(name.upper(), value_text(name, policy[name]["value"]), policy[name]["source"]) for name in COLUMNS]
    output.table(["variable", "value", "from"], rows)


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.upper()}={value_text(name, value)}" for name, value in values.items())
