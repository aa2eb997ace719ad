"""Every variable, said once: its type, bounds, default and meaning.

The field `grouping_delay` is the variable GROUPING_DELAY. `make docs` writes docs/CONFIGURATION.md, .env.example and
compose.yaml from these fields.
"""

# typer brings pydantic anyway. pydantic-settings would add two packages and 2 MB, reads os.environ alone, and takes a
# blank for a value.

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from bridge_service.errors import ConfigurationError
from bridge_service.settings.tls import without_tls
from bridge_service.settings.types import (
    OPENAI,
    ApiKey,
    BrokerUrl,
    ByTestMode,
    DatabaseUrl,
    Format,
    GroupingMode,
    Host,
    Hours,
    Level,
    ModelName,
    ModelUrl,
    Number,
    Port,
    RedisUrl,
    ResponderName,
    SecondMessage,
    Sentence,
    TimeZone,
    Token,
    Truth,
    Whole,
)
from bridge_service.settings.words import accepts

REQUIRED: Final = ("database_url", "redis_url")
"""Fields without a default. A command that does not use one of them leaves it unset: ''."""

OTHER_NAMES: Final = {"database_url": "POSTGRES_CONNECTION_STRING"}
"""A second variable of a field, read if the first one is unset."""

_UNSET: Final[Any] = None

_CONFIG: Final = ConfigDict(hide_input_in_errors=True, validate_default=True)


@dataclass(frozen=True, slots=True, kw_only=True, config=_CONFIG)
class Settings:
    """The validated values. An error lists faults in the order of the fields."""

    database_url: DatabaseUrl = Field(
        "",
        validate_default=False,
        repr=False,
        examples=["postgresql://user:password@127.0.0.1:5432/app"],
        description="The app's PostgreSQL.",
    )
    redis_url: RedisUrl = Field(
        "",
        validate_default=False,
        repr=False,
        examples=["redis://127.0.0.1:6379/0"],
        description="The Redis of queue and context.",
    )
    broker_url: BrokerUrl = Field("", repr=False, description="Another Redis that carries the queue; unset: REDIS_URL.")
    grouping_delay: Number = Field(
        15, ge=0, le=86400, description="Seconds from a burst's first message to its push; 0 pushes at once."
    )
    # Before the fields whose defaults it decides.
    test_mode: Truth = Field(
        False,  # noqa: FBT003 - pydantic wants the default here
        description="True: initiations always happen, within a minute of the match.",
    )
    grouping_max: Number = Field(
        60, ge=0, le=86400, description="Seconds that a group may stay open because the person goes on writing."
    )
    grouping_mode: GroupingMode = Field(
        "fixed",
        description="From where GROUPING_DELAY counts: `fixed` from the first message, `sliding` from the last.",
    )
    initiation_delay_min: Annotated[Number, BeforeValidator(ByTestMode(120, 0))] = Field(
        _UNSET, ge=0, le=604800, description="Seconds from a match to the bot's first message, at least."
    )
    initiation_delay_max: Annotated[Number, BeforeValidator(ByTestMode(300, 60))] = Field(
        _UNSET, ge=0, le=604800, description="Seconds from a match to the bot's first message, at most."
    )
    initiation_probability: Annotated[Number, BeforeValidator(ByTestMode(0.5, 1))] = Field(
        _UNSET, ge=0, le=1, description="Share of the matches in which the bot writes first."
    )
    thinking_delay_min: Number = Field(2, ge=0, le=86400, description="Seconds before typing starts, at least.")
    thinking_delay_max: Number = Field(15, ge=0, le=86400, description="Seconds before typing starts, at most.")
    typing_speed_cps: Number = Field(
        3.5, ge=0, le=1000000, description="Characters that a bot types in a second; 0 types in no time."
    )
    max_merges: Whole = Field(
        3, ge=0, le=100, description="How often newer messages may restart a reply; then the next draft is delivered."
    )
    second_message: SecondMessage = Field(
        "merge",
        description="What a message does to a reply under way: `merge` answers both at once, `queue` one by one.",
    )
    reply_parts: Whole = Field(1, ge=1, le=10, description="Messages of one reply, at most.")
    part_pause_min: Number = Field(1.5, ge=0, le=60, description="Seconds between two messages of a reply, at least.")
    part_pause_max: Number = Field(3, ge=0, le=60, description="Seconds between two messages of a reply, at most.")
    bot_typing: Truth = Field(
        True,  # noqa: FBT003 - as test_mode
        description="True: a bot's row in `typing_events` says that it types, if the app has that table.",
    )
    takeover_pause: Number = Field(
        3600,
        ge=0,
        le=604800,
        description="Seconds that a bot is silent after a human wrote in its name; 0: such messages are ignored.",
    )
    quiet_hours: Hours | None = Field(None, description="When a bot sleeps: nothing is pushed then; unset: never.")
    quiet_hours_weekend: Hours | None = Field(
        None, description="The same on Saturdays and Sundays; unset: as QUIET_HOURS."
    )
    quiet_spread: Number = Field(
        300, ge=0, le=86400, description="Seconds over which what waited for a bot goes out when it wakes."
    )
    disclosure: Sentence | None = Field(
        None,
        description="The first words of a bot in a conversation, such as that it is a machine; unset: none.",
        examples=["Je suis un assistant automatique."],
    )
    follow_up_after: Annotated[Number, Field(ge=3600, le=2592000)] | None = Field(
        None, description="Seconds of silence after which a bot writes once more; unset: never."
    )
    limit_replies_hour: Annotated[Whole, Field(ge=1, le=100000)] | None = Field(
        None,
        description="Replies in one conversation in an hour; above it the bot pauses there for an hour; unset: none.",
    )
    timezone: TimeZone = Field("Europe/Paris", description="The bots' time zone: their days begin and end in it.")
    responder: ResponderName = Field("scripted", description="What a bot says.")
    responder_timeout: Number = Field(
        180,
        ge=1,
        le=86400,
        description="Seconds after which a responder that has not returned counts as hung; another worker takes its"
        " turn.",
    )
    max_composing: Whole = Field(
        200,
        ge=1,
        le=10000,
        description="Calls of an async responder that one worker process has under way at once, at most.",
    )
    openai_model: ModelName | None = Field(
        None, description="The model that RESPONDER=openai asks; required with it.", examples=["gpt-5-mini"]
    )
    openai_fallback_model: ModelName | None = Field(
        None, description="The model that is asked once when OPENAI_MODEL is away or refuses; unset: none."
    )
    openai_temperature: Annotated[Number, Field(ge=0, le=2)] | None = Field(
        None, description="How freely the model writes; unset: as the model does by itself."
    )
    openai_max_tokens: Whole = Field(400, ge=1, le=100000, description="Tokens of one reply, at most.")
    openai_history_tokens: Whole = Field(
        4000,
        ge=0,
        le=1000000,
        description="Tokens of history that the model is told, at most, counted as UTF-8 bytes / 3.",
    )
    openai_price_input: Number = Field(
        0, ge=0, le=1000000, description="The price of a million tokens that the model is told, in a currency of yours."
    )
    openai_price_output: Number = Field(
        0, ge=0, le=1000000, description="The price of a million tokens that the model writes."
    )
    limit_calls_person_day: Annotated[Whole, Field(ge=1, le=1000000000)] | None = Field(
        None, description="Requests to a model that may be begun for one person in a day; unset: no limit."
    )
    limit_tokens_bot_day: Annotated[Whole, Field(ge=1, le=1000000000000)] | None = Field(
        None, description="Tokens that a bot may spend in a day; unset: no limit."
    )
    openai_base_url: ModelUrl | None = Field(
        None,
        repr=False,
        description="The server of the model, up to /v1; unset: https://api.openai.com/v1.",
        examples=["http://127.0.0.1:11434/v1"],
    )
    openai_api_key: ApiKey | None = Field(
        None, repr=False, description="The secret that the model's server asks for; unset: no Authorization header."
    )
    openai_timeout: Number = Field(
        60, gt=0, le=86400, description="Seconds for one request to the model; below RESPONDER_TIMEOUT."
    )
    redis_max_attempts: Whole = Field(
        3,
        ge=1,
        le=100,
        description="Pushes before `Échec définitif` is logged; the turn stays and is pushed when Redis is back.",
    )
    retention_days: Number = Field(
        30,
        gt=0,
        le=36500,
        description="Days, fractions allowed, after which finished turns and their events are deleted.",
    )
    ignore_older_days: Number = Field(
        15,
        ge=0,
        le=36500,
        description="Days, fractions allowed. Messages and matches whose `created_at` is older are kept and not"
        " answered; 0: none is too old.",
    )
    log_level: Level = Field("INFO", description="The least important lines that are logged.")
    log_format: Format = Field("text", description="Lines for people, or one JSON object a line.")
    host: Host = Field("127.0.0.1", description="Where PORT and HEALTH_PORT listen.")
    port: Port = Field(8080, description="The console's port; only the console binds it.")
    health_port: Port | None = Field(
        None,
        description="Where scheduler and worker serve /health/live, /health/ready and /metrics; unset: they do not.",
    )
    console_token: Token | None = Field(
        None,
        repr=False,
        description="The secret that the console and every /metrics ask for, and with which the console acts;"
        " unset: they ask for none, and the console only shows.",
    )
    require_tls: Truth = Field(
        False,  # noqa: FBT003 - as test_mode
        description="True: a URL that leads to another machine without verified TLS is refused.",
    )

    @field_validator("initiation_delay_max", "thinking_delay_max", "part_pause_max")
    @classmethod
    def _not_below_its_minimum(cls, high: float, info: ValidationInfo) -> float:
        name = str(info.field_name)
        low = name.replace("max", "min")
        if info.data.get(low, high) > high:
            why = f"above {name.upper()} (a default counts where one is unset): lower it or raise {name.upper()}"
            raise PydanticCustomError("others", "", {"faults": {low: why}})
        return high

    @field_validator("openai_timeout")
    @classmethod
    def _below_the_responders(cls, seconds: float, info: ValidationInfo) -> float:
        longest = info.data.get("responder_timeout", seconds + 1)
        if info.data.get("responder") == OPENAI and seconds >= longest:
            why = "not below RESPONDER_TIMEOUT (a default counts where one is unset): lower it or raise the other"
            raise PydanticCustomError("refused", "{why}", {"why": why})
        return seconds

    @field_validator("require_tls")
    @classmethod
    def _every_url_verified(cls, required: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic calls it
        urls_read = ("database_url", "redis_url", "broker_url", "openai_base_url")
        known = [info.data.get(name) or "" for name in urls_read]
        if required and (faults := dict(without_tls(*known))):
            raise PydanticCustomError("others", "", {"faults": faults})
        return required

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], *, needs: Collection[str] = REQUIRED) -> Self:
        """Validate every variable that is set; an empty or blank one counts as unset.

        Connects to nothing and imports no responder.

        Parameters:
          needs: the required fields that the caller uses.

        Raises:
          ConfigurationError: with every fault at once, one line each, never a value.
        """
        texts: dict[str, Any] = {}
        names: dict[str, str] = {}
        for name in FIELDS:
            for variable in (name.upper(), OTHER_NAMES.get(name, "")):
                if name not in texts and (text := environ.get(variable, "").strip()):
                    texts[name], names[name] = text, variable
        if texts.get("responder") == OPENAI and "redis_url" in needs:  # a worker's, or of what looks at one
            needs = (*needs, "openai_model")
        faults = {name: f"not set: it must be {accepts(FIELDS[name])}" for name in needs if name not in texts}
        try:
            settings = cls(**texts)
        except ValidationError as error:
            faults.update(_faults(error))
        # Outside the handler: a traceback of this error must not show pydantic's.
        if faults:
            raise ConfigurationError(
                *(f"{names.get(name, name.upper())}: {faults[name]}" for name in FIELDS if name in faults)
            )
        return settings


FIELDS: Final[Mapping[str, FieldInfo]] = Settings.__pydantic_fields__  # type: ignore[attr-defined]  # pydantic adds it
"""By name, in order."""


BY_TEST_MODE: Final = {
    name: each.func
    for name, field in FIELDS.items()
    for each in field.metadata
    if isinstance(each, BeforeValidator) and isinstance(each.func, ByTestMode)
}
"""The fields whose default TEST_MODE decides, and the two defaults of each."""


def _faults(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Yield the fields at fault, and what to do, in our own words: pydantic's may quote a value."""
    for each in error.errors(include_url=False, include_input=False):
        name = str(each["loc"][0])
        match each["type"]:
            case "undecided":
                pass
            case "others":
                yield from each["ctx"]["faults"].items()
            case "refused":
                yield name, each["ctx"]["why"]
            case _:
                yield name, f"must be {accepts(FIELDS[name])}"
