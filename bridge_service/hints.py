"""What a responder should know of the situation: small pure functions that look at a task (`Task.situation`).

Each returns a sentence, or '' if there is nothing to say. A hint quotes neither the person nor the bot: a message
could then give orders to a model in the name of the operator.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from bridge_service.turns import Line, Task

DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
FOLLOWING: Final = (
    "The person has not answered your last message: write one short, friendly message, once, that is easy to answer."
    " Do not apologise, blame nobody, invent no excuse, and do not repeat yourself."
)
REPEATED: Final = 0.85
LAST_LINES: Final = 10  # of the person's, in which a repetition is looked for
LAST_ASKED: Final = 3
REFUSAL_CHARACTERS: Final = 300
_COMPARED: Final = 200

_PARTS: Final = ((5, "night"), (12, "morning"), (18, "afternoon"), (22, "evening"), (24, "night"))
_CONFUSED: Final = re.compile(
    r"\?\?+|^[^\w\n]*(?:hein|quoi|comment|pardon|what|huh|sorry|eh)[^\w\n]*$"
    r"|\b(?:comprends? (?:pas|rien)|compris (?:pas|rien)|pas compris|tu veux dire quoi|c['’]?est[- ][aà][- ]dire)\b"
    r"|\b(?:don['’]?t understand|do(?:es)?n['’]?t make sense|what do you mean|confus(?:ed|ing))\b",
    re.IGNORECASE | re.MULTILINE,
)


def opening(task: Task) -> str:
    """Say that the bot speaks first, or that it speaks once more after a silence."""
    if task.kind == "follow_up":
        return FOLLOWING
    return "You have just been matched: write the first message, short and easy to answer." if _opens(task) else ""


def asked_last(task: Task, *, lines: int = LAST_ASKED) -> str:
    """Say whether the bot asked in its last messages, so that it neither forgets a question nor interrogates."""
    if task.kind == "follow_up":
        return ""
    asked = [_asks(line) for line in task.history if line.from_bot][-lines:]
    if len(asked) == lines and all(asked):
        return f"You asked in each of your last {lines} messages: ask nothing this time."
    if asked and asked[-1]:
        return "Your last message asked something: take up the answer, if there is one, before you ask anything else."
    return ""


def repeats(task: Task) -> str:
    """Say that the person writes again what the person has written before."""
    before = [line.content for line in task.history if not line.from_bot][-LAST_LINES:]
    texts = [line.content for line in task.messages]
    if any(_alike(text, old) for text in texts[-LAST_LINES:] for old in before):
        return "The person repeats an earlier message: your answer did not help, so answer in another way."
    return ""


def confused(task: Task) -> str:
    """Say that the person did not understand the bot."""
    if any(line.from_bot for line in task.history) and any(
        _CONFUSED.search(line.content[-1000:]) for line in task.messages[-LAST_LINES:]
    ):
        return "The person may not have understood you: say what you meant in simple words, and ask nothing new."
    return ""


def acquaintance(task: Task) -> str:
    """Say how long they have known each other, by the match or else by the history, and how long it was silent."""
    now = task.local_time
    times = [line.sent_at for line in task.history if line.sent_at and now and line.sent_at <= now]
    known = silent = 0
    if now and task.matched_at:
        known = (now - task.matched_at).days
    elif now and times:
        known = (now - min(times)).days
    if now and times:
        silent = (now - max(times)).days
    sentences = [f"You have known each other for {_days(known)}."] if known > 0 else []
    if not task.history and not _opens(task):
        sentences.append("These are the first messages of the conversation.")
    if silent:
        until = "now" if task.kind == "follow_up" else "these messages"
        sentences.append(f"Nothing was written for {_days(silent)} before {until}.")
    return " ".join(sentences)


def refusal(task: Task) -> str:
    """Say why the app refused the last draft, on one line and bounded: it may be words of the app's own trigger."""
    reason = " ".join(task.refused.split())[:REFUSAL_CHARACTERS]
    return f"The app refused your last draft ({reason}): write one that it takes, such as a shorter one." * bool(reason)


def clock(now: datetime) -> str:
    """Say the local time, in words that do not depend on the machine's language."""
    part = next(name for hour, name in _PARTS if now.hour < hour)
    day = f"{DAYS[now.weekday()]} {now.day} {MONTHS[now.month - 1]} {now.year}"
    return f"It is {day}, {now:%H:%M} ({part})."


def interrupted(task: Task) -> str:
    """Say that a newer message cut the bot's last answer short."""
    if not task.withheld:
        return ""
    return "You were interrupted: the rest of your last answer was not sent, so say again what still matters of it."


_LOOKS: Final[Sequence[Callable[[Task], str]]] = (
    opening,
    interrupted,
    asked_last,
    repeats,
    confused,
    refusal,
    acquaintance,
)


def situation(task: Task) -> tuple[str, ...]:
    """Return all hints that say something, except the clock."""
    return tuple(filter(None, (look(task) for look in _LOOKS)))


def _opens(task: Task) -> bool:
    return task.kind == "initiation"


def _days(count: int) -> str:
    return f"{count} day{'s' * (count != 1)}"


def _asks(line: Line) -> bool:
    return "?" in line.content[-200:]


def _alike(one: str, other: str) -> bool:
    one, other = (" ".join(re.findall(r"\w+", text[-_COMPARED:].casefold())) for text in (one, other))
    # Two words that were said before, such as a greeting, repeat no question.
    if min(one.count(" "), other.count(" ")) < 2:  # noqa: PLR2004 - three words
        return False
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    return matcher.quick_ratio() >= REPEATED and matcher.ratio() >= REPEATED
