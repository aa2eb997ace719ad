"""The values that are policy: what an operator may set for one bot or for all, in `bridge.bots`."""

from collections.abc import Mapping
from typing import Annotated, Final, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from bridge_service.settings.fields import BY_TEST_MODE, FIELDS, Settings
from bridge_service.settings.words import Accepts, accepts

Value: TypeAlias = float | int | str

POLICY: Final = (
    "grouping_delay",
    "grouping_max",
    "initiation_delay_min",
    "initiation_delay_max",
    "initiation_probability",
    "thinking_delay_min",
    "thinking_delay_max",
    "typing_speed_cps",
    "max_merges",
    "second_message",
    "timezone",
    "ignore_older_days",
    "openai_model",
    "openai_fallback_model",
    "openai_temperature",
    "openai_max_tokens",
    "openai_history_tokens",
    "openai_price_input",
    "openai_price_output",
    "limit_calls_person_day",
    "limit_tokens_bot_day",
)
"""The fields that `bridge.bots` has as columns. A scheduler writes its own into the row `environment`."""

_TEXTS: Final[Mapping[str, FieldInfo]] = {
    name: FieldInfo.from_annotation(
        Annotated[str, Field(min_length=1, max_length=most), Accepts(f"a text of at most {most} characters")]  # type: ignore[arg-type]
    )
    for name, most in (("persona", 20000), ("over_limit", 2000))
}
"""Columns that no variable sets."""

COLUMNS: Final[Mapping[str, FieldInfo]] = {**{name: FIELDS[name] for name in POLICY}, **_TEXTS}
"""Every column of policy: what it accepts."""

OFF: Final[Mapping[str, Value]] = {
    "openai_fallback_model": "none",
    "openai_temperature": -1,
    "limit_calls_person_day": 0,
    "limit_tokens_bot_day": 0,
    "persona": "none",
    "over_limit": "none",
}
"""The columns whose value may be absent, and what stands in `bridge.bots` where a row switches one off."""


def policy(settings: Settings, environ: Mapping[str, str]) -> dict[str, Value]:
    """Return what the environment sets of the policy, by column of `bridge.bots`.

    TEST_MODE sets the fields in BY_TEST_MODE.
    """
    return {
        name: getattr(settings, name)
        for name in POLICY
        if environ.get(name.upper(), "").strip() or (settings.test_mode and name in BY_TEST_MODE)
    }


def read_value(name: str, text: str) -> Value:
    """Read a column's value as an operator writes it.

    Raises:
      ValueError: it is none; the error says what would be.
    """
    field = COLUMNS[name]
    try:
        adapter: TypeAdapter[Value] = TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]
        return adapter.validate_python(text)
    except ValidationError:
        raise ValueError(f"{name.upper()} must be {accepts(field)}, or none") from None
