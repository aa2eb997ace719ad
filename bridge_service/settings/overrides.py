"""What an operator sets of the policy, as text: on the command line, on the console, on the playground's page."""

from collections.abc import Mapping, Sequence
from typing import Final

from bridge_service.settings.policy import COLUMNS, OFF, Value, read_value
from bridge_service.settings.types import NONE
from bridge_service.settings.words import accepts, as_text

_CHECK: Final = "bots_{}_check"
"""How PostgreSQL calls the CHECK of a column."""

_RULES: Final[Mapping[str, str]] = {
    "bots_initiation_delay": "INITIATION_DELAY_MIN must not be above INITIATION_DELAY_MAX: set both",
    "bots_thinking_delay": "THINKING_DELAY_MIN must not be above THINKING_DELAY_MAX: set both",
    "bots_part_pause": "PART_PAUSE_MIN must not be above PART_PAUSE_MAX: set both",
    "bots_same_age_for_all": "IGNORE_OLDER_DAYS is the same for all bots: set it for `default`",
    **{_CHECK.format(name): f"{name.upper()} must be {accepts(field)}, or none" for name, field in COLUMNS.items()},
}


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


def fault_of(constraint: str) -> str:
    """Say what is wrong if this constraint of `bridge.bots` refuses a value."""
    return _RULES.get(constraint, f"bridge.bots refuses it: {constraint}")


def value_text(name: str, value: Value | None) -> str:
    """Return a value as an operator writes it."""
    if value is None or value == OFF.get(name):
        return NONE
    if isinstance(value, list):
        return ", ".join(value)
    return as_text(float(value) if isinstance(value, int) and not isinstance(value, bool) else value)
