"""The values that are policy: what an operator may set for one bot or for all, in `bridge.bots`."""

from collections.abc import Mapping
from typing import Annotated, Final, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from bridge_service.settings.fields import BY_TEST_MODE, FIELDS, Settings
from bridge_service.settings.types import NONE, Sentence, Truth, Words
from bridge_service.settings.words import Accepts, accepts

Value: TypeAlias = bool | float | int | str | list[str]

POLICY: Final = (
    "grouping_delay",
    "grouping_max",
    "grouping_mode",
    "initiation_delay_min",
    "initiation_delay_max",
    "initiation_probability",
    "thinking_delay_min",
    "thinking_delay_max",
    "typing_speed_cps",
    "max_merges",
    "second_message",
    "reply_parts",
    "part_pause_min",
    "part_pause_max",
    "bot_typing",
    "takeover_pause",
    "quiet_hours",
    "quiet_hours_weekend",
    "quiet_spread",
    "disclosure",
    "follow_up_after",
    "limit_replies_hour",
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

_MORE: Final[Mapping[str, FieldInfo]] = {
    name: FieldInfo.from_annotation(kind)  # type: ignore[arg-type]
    for name, kind in {
        "persona": Annotated[str, Field(min_length=1, max_length=20000), Accepts("a text of at most 20000 characters")],
        "over_limit": Sentence,
        "active": Truth,
        "distress_words": Words,
        "distress_text": Sentence,
    }.items()
}
"""Columns that no variable sets."""

COLUMNS: Final[Mapping[str, FieldInfo]] = {**{name: FIELDS[name] for name in POLICY}, **_MORE}
"""Every column of policy: what it accepts."""

OFF: Final[Mapping[str, Value]] = {
    "openai_fallback_model": NONE,
    "openai_temperature": -1,
    "limit_calls_person_day": 0,
    "limit_tokens_bot_day": 0,
    "persona": NONE,
    "over_limit": NONE,
    "quiet_hours": NONE,
    "quiet_hours_weekend": NONE,
    "disclosure": NONE,
    "follow_up_after": 0,
    "limit_replies_hour": 0,
    "distress_words": [],
    "distress_text": NONE,
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
