"""`bots`: which policy holds for each bot, and which row of `bridge.bots` sets it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bridge_service.machine.ledger import open_ledger
from bridge_service.operate.output import Output
from bridge_service.settings import POLICY, Settings
from bridge_service.settings.fields import FIELDS, number_form, whole_form
from bridge_service.settings.words import accepts, as_text

DEFAULT: Final = "default"

NONE: Final = frozenset({"", "none"})
"""What takes an override back."""

_MOST: Final = 2**31 - 1
"""The largest value of an integer column, and beyond every bound."""

_NUMBER: Final = "bots_{}_check"
"""How PostgreSQL calls the CHECK of a column."""

_RULES: Final[Mapping[str, str]] = {
    "bots_initiation_delay": "INITIATION_DELAY_MIN must not be above INITIATION_DELAY_MAX: set both",
    "bots_thinking_delay": "THINKING_DELAY_MIN must not be above THINKING_DELAY_MAX: set both",
    "bots_same_age_for_all": "IGNORE_OLDER_DAYS is the same for all bots: set it for `default`",
    **{_NUMBER.format(name): f"{name.upper()} must be {accepts(FIELDS[name])}, or none" for name in POLICY},
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


def set_values(settings: Settings, output: Output, bot: str, values: Mapping[str, float | None]) -> bool:
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


def read(texts: Sequence[str]) -> dict[str, float | None]:
    """Read `NAME=VALUE` texts: NAME is a variable or a column, in any case.

    Raises:
      ValueError: with what is wrong, in one line.
    """
    values: dict[str, float | None] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        name, value = name.strip().lower(), value.strip().lower()
        if not sign:
            raise ValueError("write each as NAME=VALUE")
        if name not in POLICY:
            raise ValueError(f"policy has no {name.upper()}; it has {', '.join(POLICY).upper()}")
        if name in values:
            raise ValueError(f"{name.upper()} is named twice")
        values[name] = None if value in NONE else _number(name, value)
    return values


def _number(name: str, text: str) -> float:
    """Read a number. Its bounds are the table's business, except that a column has to hold it."""
    try:
        if FIELDS[name].annotation is float:
            number_form(text)
            return min(float(text), _MOST)
        whole_form(text)
        return max(-_MOST, min(int(text), _MOST))
    except ValueError:
        raise ValueError(f"{name.upper()} must be {accepts(FIELDS[name])}, or none") from None


def _tell(output: Output, bot: str, policy: Mapping[str, Mapping[str, Any]]) -> None:
    output.document({"bot": bot, "policy": policy})
    rows = [(name.upper(), _value(policy[name]["value"]), policy[name]["source"]) for name in POLICY]
    output.table(["variable", "value", "from"], rows)


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.upper()}={_value(value)}" for name, value in values.items())


def _value(value: float) -> str:
    return as_text(float(value))
