"""`bots`: which policy holds for each bot, and which row of `bridge.bots` sets it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bridge_service.machine.ledger import open_ledger
from bridge_service.operate.output import Output
from bridge_service.settings import Settings
from bridge_service.settings.policy import COLUMNS, OFF, Value, read_value
from bridge_service.settings.words import accepts, as_text

DEFAULT: Final = "default"

NONE: Final = "none"

_CHECK: Final = "bots_{}_check"
"""How PostgreSQL calls the CHECK of a column."""

_RULES: Final[Mapping[str, str]] = {
    "bots_initiation_delay": "INITIATION_DELAY_MIN must not be above INITIATION_DELAY_MAX: set both",
    "bots_thinking_delay": "THINKING_DELAY_MIN must not be above THINKING_DELAY_MAX: set both",
    "bots_same_age_for_all": "IGNORE_OLDER_DAYS is the same for all bots: set it for `default`",
    **{_CHECK.format(name): f"{name.upper()} must be {accepts(field)}, or none" for name, field in COLUMNS.items()},
}


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
            fault = _RULES.get(constraint, f"bridge.bots refuses it: {constraint}")
            output.complain(fault)
            output.document({"error": fault})
            return False
        policy = ledger.bot(bot_id)
    _tell(output, bot, policy)
    return True


def read(texts: Sequence[str]) -> dict[str, Value | None]:
    """Read `NAME=VALUE` texts: NAME is a variable or a column, in any case.

    Nothing, or `none` where a value cannot be absent, takes an override back.

    Raises:
      ValueError: with what is wrong, in one line.
    """
    values: dict[str, Value | None] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        name, value = name.strip().lower(), value.strip()
        if not sign:
            raise ValueError("write each as NAME=VALUE")
        if name not in COLUMNS:
            raise ValueError(f"policy has no {name.upper()}; it has {', '.join(COLUMNS).upper()}")
        if name in values:
            raise ValueError(f"{name.upper()} is named twice")
        if value.lower() == NONE:
            values[name] = OFF.get(name)
        else:
            values[name] = read_value(name, value) if value else None
    return values


def _tell(output: Output, bot: str, policy: Mapping[str, Mapping[str, Any]]) -> None:
    output.document({"bot": bot, "policy": policy})
    rows = [(name.upper(), _value(name, policy[name]["value"]), policy[name]["source"]) for name in COLUMNS]
    output.table(["variable", "value", "from"], rows)


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.upper()}={_value(name, value)}" for name, value in values.items())


def _value(name: str, value: Value | None) -> str:
    if value is None or value == OFF.get(name):
        return NONE
    return as_text(float(value) if isinstance(value, int) else value)
