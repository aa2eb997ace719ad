"""How long a person would take: thinking before the first key, then typing.

Pure: the caller passes the random numbers in and turns the seconds into a due time; nothing here sleeps.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bridge_service.turns import Line

MAXIMUM_TYPING_SECONDS = 120.0
"""The most that typing takes, however long the reply is."""

PUNCTUATION_PAUSE_SECONDS = 0.3
EMOJI_PAUSE_SECONDS = 0.5

# A run of marks ("...", "?!") or of emojis is one pause.
_PUNCTUATION = re.compile(r"[.,;:!?…]+")
_EMOJI = re.compile("(?:[\u2600-\u27bf\U0001f000-\U0001faff][\ufe0f\u200d]*)+")

# Effort is counted in characters to read. This much effort reaches half of the thinking range.
_HALFWAY_EFFORT = 200.0
_QUESTION_EFFORT = 60.0
_MESSAGE_EFFORT = 30.0
# The share of the range that effort decides. Chance decides the rest, or equal groups would take equal times.
_EFFORT_SHARE = 0.7

JUST_SPOKE = timedelta(seconds=30)
"""A bot whose last message is younger is still in the conversation, and thinks for less time."""

# What is left of the chosen share of the range: for a bot that has just spoken, and for an urgent group.
_JUST_SPOKE_SHARE = 0.5
_URGENT_SHARE = 0.4
_URGENT = re.compile(
    r"[!！]|\b(?:urgen(?:te?s?|ces?|cy)|vite|help|sos|asap|hurry|quick(?:ly)?|emergency|au secours"
    r"|(?:à|a) l['’]aide|tout de suite|right now)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]{4,}")
# Urgency is looked for in the latest messages, and at the end of each: a call must not read megabytes for a pause.
_LATEST_MESSAGES = 20
_LATEST_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a bot is, by the columns of bridge.bots.

    Attributes:
      thinking_delay_min: seconds before typing starts, at least.
      thinking_delay_max: seconds before typing starts, at most; not below the minimum.
      typing_speed_cps: characters a second; 0 types in no time.
      part_pause_min: seconds before the typing of each message after the first, at least.
      part_pause_max: the same, at most; not below the minimum.
    """

    thinking_delay_min: float
    thinking_delay_max: float
    typing_speed_cps: float
    part_pause_min: float = 0.0
    part_pause_max: float = 0.0


def is_urgent(messages: Sequence[str]) -> bool:
    """Whether a group asks for a quick answer.

    An exclamation mark says so, a word of four or more letters in capitals, or a word such as "urgent" or "help".
    """
    texts = [text[-_LATEST_CHARACTERS:] for text in messages[-_LATEST_MESSAGES:]]
    return any(_URGENT.search(text) or any(word.isupper() for word in _WORD.findall(text)) for text in texts)


def just_spoke(history: Sequence[Line], now: datetime | None) -> bool:
    """Whether the bot's last message is younger than `JUST_SPOKE`.

    Parameters:
      history: oldest first.
      now: aware; None in a task made by hand, of which nothing is known.
    """
    last = next((line.sent_at for line in reversed(history) if line.from_bot), None)
    return now is not None and last is not None and abs(now - last) < JUST_SPOKE


def thinking_seconds(
    messages: Sequence[str], minimum: float, maximum: float, rng: random.Random, *, warm: bool = False
) -> float:
    """Seconds to read a group and think about it: more for longer texts, more messages and more questions.

    A group that `is_urgent` takes less time, and so does any group if the bot has just spoken.

    Parameters:
      messages: the contents of the covered messages; none for an initiation or a follow-up.
      minimum: seconds, at least.
      maximum: seconds, at most; not below the minimum.
      rng: draws once, whatever the arguments.
      warm: whether the bot has just spoken in this conversation.

    Returns:
      Seconds from `minimum` to `maximum`. With the same draw a longer group never takes less time, unless it is urgent.
    """
    effort = sum(len(text) + _QUESTION_EFFORT * text.count("?") + _MESSAGE_EFFORT for text in messages)
    share = _EFFORT_SHARE * effort / (effort + _HALFWAY_EFFORT) + (1 - _EFFORT_SHARE) * rng.random()
    share *= (_JUST_SPOKE_SHARE if warm else 1.0) * (_URGENT_SHARE if is_urgent(messages) else 1.0)
    return min(maximum, minimum + (maximum - minimum) * share)


def typing_seconds(reply: str, characters_per_second: float) -> float:
    """Seconds to type a reply, with a short pause at each punctuation mark and each emoji.

    Parameters:
      reply: the text.
      characters_per_second: typing speed; 0 means no time at all, pauses included.

    Returns:
      Seconds from 0 to `MAXIMUM_TYPING_SECONDS`.
    """
    if characters_per_second == 0:
        return 0.0
    pauses = PUNCTUATION_PAUSE_SECONDS * _count(_PUNCTUATION, reply) + EMOJI_PAUSE_SECONDS * _count(_EMOJI, reply)
    return min(MAXIMUM_TYPING_SECONDS, len(reply) / characters_per_second + pauses)


def pause_before_delivery(
    messages: Sequence[str], reply: str, pace: Pace, rng: random.Random, *, warm: bool = False
) -> float:
    """Seconds from the moment a reply is composed to its delivery: thinking, then typing.

    Parameters:
      messages: the contents of the covered messages; none for an initiation or a follow-up.
      reply: the text to deliver.
      pace: the bot's; a pace of zeros gives exactly 0.0.
      rng: draws once.
      warm: whether the bot has just spoken in this conversation.
    """
    thinking = thinking_seconds(messages, pace.thinking_delay_min, pace.thinking_delay_max, rng, warm=warm)
    return thinking + typing_seconds(reply, pace.typing_speed_cps)


def pause_before_part(text: str, pace: Pace, rng: random.Random) -> float:
    """Seconds from one message of a reply to the next: a pause, then typing.

    Parameters:
      text: the message to come.
      pace: the bot's; a pace of zeros gives exactly 0.0.
      rng: draws once.
    """
    pause = pace.part_pause_min + (pace.part_pause_max - pace.part_pause_min) * rng.random()
    return pause + typing_seconds(text, pace.typing_speed_cps)


def _count(pattern: re.Pattern[str], text: str) -> int:
    return sum(1 for _ in pattern.finditer(text))
