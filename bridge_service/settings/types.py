"""What a variable may hold: the types of the fields, and how each reads a text."""

import dataclasses
import re
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from bridge_service.settings import urls
from bridge_service.settings.words import Accepts

OPENAI: Final = "openai"
"""The responder that needs OPENAI_MODEL."""

NONE: Final = "none"
"""What an operator writes in `bridge.bots` where a value shall be absent."""


def number_form(value: object) -> object:
    """Refuse a text that is no number as an operator writes it."""
    # pydantic also reads 1_5, digits of every script, and 80.0 as a whole number. The operator meant another value.
    if isinstance(value, str) and not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", value):
        raise ValueError
    return value


def whole_form(value: object) -> object:
    """Refuse a text that is no whole number as an operator writes it."""
    if isinstance(value, str) and not re.fullmatch("[+-]?[0-9]+", value):
        raise ValueError
    return value


def _broker(text: str, info: ValidationInfo) -> str:
    return urls.broker_url(text) if text else str(info.data.get("redis_url", ""))


def _token(text: str) -> str:
    # Every client can send these characters in a header, and 16 of them are hard to guess.
    if not re.fullmatch(r"[!-~]{16,256}", text):
        raise ValueError
    return text


def _responder(text: str) -> str:
    # Only the form: the worker alone imports the module, for an import may do anything.
    if text not in ("scripted", "echo", OPENAI) and not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", text):
        raise ValueError
    return text


def _model(text: str) -> str:
    # Such as llama3.2:3b, openai/gpt-5 or @cf/meta/llama-3: what a JSON file or a sentence would be is a slip.
    if not re.fullmatch(r"[\w@/.][\w./:@+-]{0,199}", text, re.ASCII):
        raise ValueError
    return text


def _zone(text: str) -> str:
    # ZoneInfo raises ValueError for a path, and ZoneInfoNotFoundError for a name that this machine does not know.
    try:
        return ZoneInfo(text).key
    except (ZoneInfoNotFoundError, OSError):
        raise ValueError from None


def _hours(text: str) -> str:
    # From one minute of the day to another, also across midnight.
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", text, re.ASCII)
    if not found or found.group(1, 2) == found.group(3, 4):
        raise ValueError
    return text


def _words(text: object) -> object:
    if not isinstance(text, str):
        return text
    return [word.strip() for word in text.split(",") if word.strip()]


def _api_key(text: str) -> str:
    # The characters of a bearer token (RFC 6750), and the colon of providers that join two parts.
    if not re.fullmatch(r"[\w.~+/:-]{1,1000}=*", text, re.ASCII):
        raise ValueError
    return text


@dataclasses.dataclass(frozen=True, slots=True)
class ByTestMode:
    """The two defaults of a field; TEST_MODE chooses."""

    live: float
    testing: float

    def __call__(self, value: object, info: ValidationInfo) -> object:
        """Return the value, or the default if it is unset."""
        if value is not None:
            return value
        if "test_mode" not in info.data:
            raise PydanticCustomError("undecided", "TEST_MODE is wrong, and its own fault says so")
        return self.testing if info.data["test_mode"] else self.live


Number = Annotated[float, BeforeValidator(number_form)]
Whole = Annotated[int, BeforeValidator(whole_form)]
Port = Annotated[Whole, Field(ge=1, le=65535)]
Truth = Annotated[bool, Accepts("true or false (or 1, 0, yes, no, on, off)")]
DatabaseUrl = Annotated[
    str, AfterValidator(urls.database_url), Accepts("a postgresql:// URL or the key=value form of libpq")
]
RedisUrl = Annotated[str, AfterValidator(urls.redis_url), Accepts("a redis:// or rediss:// URL")]
BrokerUrl = Annotated[str, AfterValidator(_broker), Accepts("a redis:// or rediss:// URL")]
ResponderName = Annotated[str, AfterValidator(_responder), Accepts("scripted, echo, openai or package.module:callable")]
ModelName = Annotated[str, AfterValidator(_model), Accepts("a model's name without spaces, as its server spells it")]
ModelUrl = Annotated[str, AfterValidator(urls.model_url), Accepts("an https:// URL, or http:// to a private address")]
ApiKey = Annotated[
    str, AfterValidator(_api_key), Accepts("a key as its server issued it: letters, digits and -._~+/:=")
]
SecondMessage = Annotated[Literal["merge", "queue"], BeforeValidator(str.lower)]
GroupingMode = Annotated[Literal["fixed", "sliding"], BeforeValidator(str.lower)]
Hours = Annotated[str, AfterValidator(_hours), Accepts("HH:MM-HH:MM with two different times, such as 22:30-07:00")]
Sentence = Annotated[str, Field(min_length=1, max_length=2000), Accepts("a text of at most 2000 characters")]
Words = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=100)]],
    BeforeValidator(_words),
    Field(min_length=1, max_length=200),
    Accepts("at most 200 words or phrases of at most 100 characters, with commas between"),
]
TimeZone = Annotated[str, AfterValidator(_zone), Accepts("the name of a time zone, such as Europe/Paris")]
Level = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(str.upper)]
Format = Annotated[Literal["text", "json"], BeforeValidator(str.lower)]
Host = Annotated[str, AfterValidator(urls.host), Accepts("a host name or an IP address")]
Token = Annotated[str, AfterValidator(_token), Accepts("16 to 256 characters of ASCII, none of them a space")]
