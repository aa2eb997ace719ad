"""What is accepted of a model: the reply in its answer, cleaned and bounded, or a fault that quotes nothing of it."""

import json
import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from http import HTTPStatus
from typing import Final

from bridge_service.errors import ResponderUnavailable
from bridge_service.responders import storable
from bridge_service.turns import Action, Reply

CHARACTERS_A_TOKEN: Final = 8
"""A reply has at most so many for each token of OPENAI_MAX_TOKENS; in most languages a token has three or four."""

ECHO_CHARACTERS: Final = 60
"""A reply that repeats so many characters of the `system` messages in a row tells them; the local time is shorter."""

REPEAT_CHARACTERS: Final = 40
REPEAT_SIMILARITY: Final = 0.9
REPEAT_LINES: Final = 5
"""A reply nearly repeats one of the bot's last lines if both are that long and that similar."""

USAGE_MOST: Final = 1_000_000_000
"""Tokens of one answer that are believed: the sums of a day stay numbers that PostgreSQL holds."""

_COMPARED: Final = 1000  # characters: two long texts that begin alike repeat each other, and more would take seconds

_REMEDIES: Final = {
    400: "it does not take the request: look at OPENAI_MODEL, OPENAI_TEMPERATURE and OPENAI_MAX_TOKENS",
    401: "it does not take the key: set OPENAI_API_KEY",
    402: "the account has no credit",
    403: "the key may not use this model: look at OPENAI_API_KEY and OPENAI_MODEL",
    404: "it does not know the address or the model: look at OPENAI_BASE_URL and OPENAI_MODEL",
    413: "the request is too long: lower OPENAI_HISTORY_TOKENS",
}
_REDIRECT: Final = "redirects are not followed: write its final address into OPENAI_BASE_URL"

_THOUGHTS: Final = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)|\A.*?</think(?:ing)?>", re.DOTALL)
_MARKS: Final = re.compile(r"<\|[^|<>\n]{1,40}\|>")  # such as <|im_end|>, which ends a turn in many models
_FENCE: Final = re.compile(r"\A```\w*\s*(\{.*\})\s*```\Z", re.DOTALL)
_FORM: Final = re.compile(  # a text that holds our JSON, or whatever a model meant to be it
    r"[\"'“](?:parts|action)[\"'”]\s*:|\{\s*(?:parts|action)\s*:|\A(?:```\w*\s*)?\{\s*(?:[\"'“]|\Z)", re.IGNORECASE
)
_SENTENCE_END: Final = re.compile(r'[.!?…]["»”)]?(?=\s|$)')


class ModelFault(Exception):
    """Raised when a model's server refuses, or its answer is of no use: an attempt of the turn. Quotes nothing."""


def fault_of(status: object, retry_after: float | None = None) -> Exception:
    """Return what to raise for a status that is no success.

    Parameters:
      status: of HTTP, or what an answer calls its code.
    """
    if not isinstance(status, int) or isinstance(status, bool) or not 300 <= status <= 599:  # noqa: PLR2004 - of HTTP
        return ModelFault("the model's server reports an error without a status")
    away = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
    if status in away or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ResponderUnavailable(f"the model's server answers {status}", retry_after=retry_after)
    remedy = _REDIRECT if status < HTTPStatus.BAD_REQUEST else _REMEDIES.get(status, "look at OPENAI_BASE_URL")
    return ModelFault(f"the model's server answers {status}; {remedy}")


def text_of(body: bytes) -> str:
    """Return the text of an answer. Tool calls beside it and what it says of its own `usage` are not looked at.

    Raises:
      ResponderUnavailable: the answer reports a server that is away, as routers do with a status of 200.
      ModelFault: there is no text in it.
    """
    try:
        # A server may cut a character in two where the limit of tokens falls into it.
        answer = json.loads(body.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        raise ModelFault("the model's answer is no JSON: look at OPENAI_BASE_URL") from None
    match answer:
        case {"error": {} as error}:
            raise fault_of(error.get("code"))
        case {"choices": [{"finish_reason": "error"}, *_]}:
            raise ResponderUnavailable("the model's server broke off its answer")
        case {"choices": [{"finish_reason": "content_filter"}, *_]}:
            raise ModelFault("the provider's filter holds the answer back")
        case {"choices": [{"message": {"refusal": str(words)}}, *_]} if words:
            raise ModelFault("the model refuses to answer")
        case {"choices": [{"message": {} as message} as choice, *_]}:
            text = without_thoughts(_joined(message.get("content")))
            if not text:
                called = " and calls a tool that it was not offered" if message.get("tool_calls") else ""
                raise ModelFault(f"the model's answer has no text{called}")
            return to_last_sentence(text) if choice.get("finish_reason") == "length" else text
    raise ModelFault("the answer is not of the chat/completions protocol: look at OPENAI_BASE_URL")


def usage_of(body: bytes) -> tuple[int, int]:
    """Return the tokens in and out that an answer says it cost, up to `USAGE_MOST`; 0 for what makes no sense."""
    try:
        usage = json.loads(body.decode("utf-8-sig", "replace"))["usage"]
        numbers = [usage["prompt_tokens"], usage["completion_tokens"]]
    except (ValueError, RecursionError, KeyError, TypeError):
        return 0, 0
    said_in, said_out = (min(n, USAGE_MOST) if type(n) is int and n > 0 else 0 for n in numbers)
    return said_in, said_out


def _joined(content: object) -> str:
    """Return a content as one text; some servers send it in parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def without_thoughts(text: str) -> str:
    """Return a text without what a model thinks aloud and without the marks that end its turns."""
    return _MARKS.sub("", _THOUGHTS.sub("", text)).strip()


def to_last_sentence(text: str) -> str:
    """Return a text that was cut off up to its last whole sentence; all of it if there is none."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if ends else text


def reply_of(text: str, bot_name: str, max_tokens: int) -> Reply:
    """Return what a model's text answers: our JSON as it says, any other text as one part.

    Each part is without the bot's name before it and quotation marks around it. U+FFFD goes too: it stands where the
    answer was no UTF-8, or held half a character. All parts together are at most as long as paid for.

    Raises:
      ModelFault: there is no text, or the text holds our JSON and is not it: a person never reads half of it.
    """
    bare = _bare(text, bot_name)
    parts, action = _form(bare) if _FORM.search(bare) else ([bare], "say")
    left = CHARACTERS_A_TOKEN * max_tokens
    kept = []
    for part in filter(None, (_bare(part, bot_name) for part in parts)):
        if left <= 0:
            break
        kept.append(part if len(part) <= left else to_last_sentence(part[:left]))
        left -= len(kept[-1])
    if action == "say" and not kept:
        raise ModelFault("the model's answer has no text")
    if action == "silence" and kept:
        raise ModelFault("the model's answer is silence and has a text")
    return Reply(tuple(kept), action)


def _form(text: str) -> tuple[list[str], Action]:
    """Read our JSON: {"parts": [texts], "action": "say"}, where either key may be missing."""
    fenced = _FENCE.match(text)
    try:
        found = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        found = None
    match found:
        case {"action": "say" | "silence" | "leave" as action, "parts": [*parts]} if _texts(parts):
            return parts, action
        case {"action": "silence" | "leave" as action} if "parts" not in found:
            return [], action
        case {"parts": [*parts]} if "action" not in found and _texts(parts):
            return parts, "say"
        case {} if not {"parts", "action"} & found.keys():
            return [text], "say"  # JSON, and not ours
    raise ModelFault("the model's answer is broken JSON: it is not of the form that it was told")


def _texts(parts: list[object]) -> bool:
    return all(isinstance(part, str) for part in parts)


def _bare(text: str, bot_name: str) -> str:
    """Return a text as PostgreSQL can hold it, without the bot's name before it and quotation marks around it."""
    kept = storable(text, len(text)).replace("\ufffd", "").strip()
    if bot_name:
        kept = re.sub(rf"\A\**{re.escape(bot_name)}\**\s*:\**\s*", "", kept, flags=re.IGNORECASE)
    if re.fullmatch(r'"[^"]+"|«[^«»]+»|“[^“”]+”', kept):
        kept = kept[1:-1].strip()
    return kept


def tells(reply: str, instructions: str) -> bool:
    """Tell whether a reply repeats `ECHO_CHARACTERS` of instructions, whatever their case, spaces and punctuation."""
    said = _words(reply)
    if len(said) < ECHO_CHARACTERS:
        return False
    secret = _words(instructions)
    runs = {secret[start : start + ECHO_CHARACTERS] for start in range(len(secret) - ECHO_CHARACTERS + 1)}
    return any(said[start : start + ECHO_CHARACTERS] in runs for start in range(len(said) - ECHO_CHARACTERS + 1))


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def nearly_repeats(reply: str, said: Iterable[str]) -> bool:
    """Tell whether a reply is nearly one of the texts `said`."""
    return any(_similar(reply.strip(), text.strip()) for text in said)


def _similar(one: str, other: str) -> bool:
    if min(len(one), len(other)) < REPEAT_CHARACTERS:
        return False
    if one == other:
        return True
    matcher = SequenceMatcher(None, one[:_COMPARED], other[:_COMPARED], autojunk=False)
    # The quick ratios are upper bounds of the slow one.
    ratios = (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio)
    return all(ratio() >= REPEAT_SIMILARITY for ratio in ratios)
