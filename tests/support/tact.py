"""What the books of ledger.py check of tact: replies of several messages, humans, disclosures, edits and deletions.

Pure. The last line of each message of a reply is its `Mark`. The first message also says, as `Told`, what its responder
was told of an interrupted reply.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from tests.support.ledger import Change, Message, Sent

SIGN: Final = "§"
_MARK: Final = re.compile(rf"{SIGN}(\w+)\.(\d+)/(\d+)")
_TOLD: Final = re.compile(rf"{SIGN}told ([^|]*)\|(.*)")


@dataclass(frozen=True, slots=True)
class Tact:
    """What a run with tact noted beside its messages.

    Attributes:
      humans: messages that the app wrote in a bot's name, as `Sent` of ledger.py.
      changes: edits and deletions.
      pause: TAKEOVER_PAUSE in seconds.
      disclosure: DISCLOSURE of the bots that speak in `disclosing`.
    """

    humans: Sequence[Sent] = ()
    changes: Sequence[Change] = ()
    pause: float = 0.0
    disclosure: str | None = None
    disclosing: frozenset[str] = frozenset()


class Mark(NamedTuple):
    """Which message of which reply this is: number 2 of 3, say."""

    name: str
    number: int
    of: int

    def __str__(self) -> str:
        return f"{SIGN}{self.name}.{self.number}/{self.of}"


class Told(NamedTuple):
    """The marks of what a responder was told of an interrupted reply: messages that were said, and the others."""

    said: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()

    @classmethod
    def of(cls, said: Iterable[str], withheld: Iterable[str]) -> Self:
        """Take the marks out of whole texts."""
        return cls(*(tuple(text.rpartition("\n")[2] for text in texts) for texts in (said, withheld)))

    @property
    def lines(self) -> tuple[str, ...]:
        """As lines of a message."""
        return (f"{SIGN}told {' '.join(self.said)}|{' '.join(self.withheld)}",) if any(self) else ()


@dataclass(frozen=True, slots=True)
class Words:
    """A message of a bot, read: what it quotes, and the rest. Without a mark it is a whole reply."""

    message: Message
    quotes: tuple[str, ...]
    mark: Mark
    told: Told

    @property
    def is_first(self) -> bool:
        """Whether it is the first message of its reply, which covers the group."""
        return self.mark.number == 1


def read(message: Message) -> Words:
    """Read a message of a bot."""
    quotes: list[str] = []
    mark, told = Mark(message.message_id, 1, 1), Told()
    for line in message.content.split("\n"):
        if found := _MARK.fullmatch(line):
            mark = Mark(found[1], int(found[2]), int(found[3]))
        elif found := _TOLD.fullmatch(line):
            told = Told(tuple(found[1].split()), tuple(found[2].split()))
        else:
            quotes.append(line)
    return Words(message, tuple(quotes), mark, told)


@dataclass(slots=True)
class Deeds:
    """What was done in one conversation beside its messages.

    Attributes:
      humans: what humans wrote in the bot's name and was committed, with the row.
      changes: of each message, in the order in which they were made.
    """

    humans: list[tuple[Sent, Message]] = field(default_factory=list)
    changes: defaultdict[str, list[Change]] = field(default_factory=lambda: defaultdict(list))
    disclosures: list[Message] = field(default_factory=list)

    def answered_by_human(self, note: Sent) -> bool:
        """Whether a human may have answered a message: it was not surely written after each of them (H3)."""
        return any(human.returned is None or human.returned >= note.began for human, _ in self.humans)

    def surely_answered_by_human(self, note: Sent, by: Message) -> bool:
        """Whether a human that committed before the bot's message `by` has answered a message for sure."""
        return any(
            note.returned is not None and note.returned < human.began and _is_before(row, by)
            for human, row in self.humans
        )

    def deleted(self, message_id: str) -> Change | None:
        """Return the deletion of a message that may be gone."""
        return next((change for change in self.changes.get(message_id, ()) if change.content is None), None)

    def changed_before(self, at: datetime) -> int:
        """How many changes may have thrown a draft away by then."""
        return sum(change.began <= at for changes in self.changes.values() for change in changes)

    def silences(self, pause: float) -> list[tuple[Message, datetime]]:
        """Return each human's message and until when the bot is silent after it at least (H4)."""
        until: list[tuple[Message, datetime]] = []
        first = last = None
        for human, row in sorted(self.humans, key=lambda each: each[0].began):
            if first is None or last is None or human.began > last + timedelta(seconds=2 * pause):
                first = human.began
            last = human.began
            until.append((row, min(last + timedelta(seconds=pause), first + timedelta(seconds=3 * pause))))
        return until

    def is_paused(self, since: datetime, until: datetime, pause: float) -> bool:
        """Whether a human's pause may have touched this time."""
        longest = timedelta(seconds=3 * pause + 1)
        return any(human.began <= until and since <= human.began + longest for human, _ in self.humans)


def examine(
    match_id: str,
    words: Sequence[Words],
    openers: Sequence[Message],
    covers: Mapping[str, Sequence[Sent]],
    deeds: Deeds,
    *,
    tact: Tact,
    find: Callable[[str, str], None],
) -> None:
    """Look for broken promises in one conversation.

    Parameters:
      words: what the bot said beside openers and disclosures, in order of time.
      covers: what each of its messages covers, by id.
      find: counts a fault: its kind, and the words.
    """
    said = [*(each.message for each in words), *openers, *deeds.disclosures]
    for row, until in deeds.silences(tact.pause):
        for message in said:
            if _is_before(row, message) and (message.committed or message.created_at) < until:
                find("spoken_over", f"{message.message_id} in {match_id} follows the human's {row.message_id}")
    for each in words:
        for note in covers.get(each.message.message_id, ()):
            if deeds.surely_answered_by_human(note, each.message):
                find("doubled", f"{note.content} in {match_id} was answered by a human and by the bot")
    for opener in openers:
        if any(_is_before(row, opener) for _, row in deeds.humans):
            find("forbidden", f"the opener in {match_id} comes after a human's message")
    if match_id in tact.disclosing:
        _disclosed(match_id, [message for message in said if message not in deeds.disclosures], deeds.disclosures, find)
    _in_order(match_id, words, find)
    _told(match_id, words, deeds, find)


def _disclosed(
    match_id: str, others: Sequence[Message], disclosures: Sequence[Message], find: Callable[[str, str], None]
) -> None:
    if len(disclosures) != bool(others):
        find("undisclosed", f"{len(disclosures)} disclosures in {match_id}")
    elif others and min(message.created_at for message in others) <= disclosures[0].created_at:
        find("undisclosed", f"the disclosure in {match_id} comes after other words")


def _in_order(match_id: str, words: Sequence[Words], find: Callable[[str, str], None]) -> None:
    """Each reply's messages come once, from the first one on, and none after another reply began."""
    out: dict[str, int] = {}
    last = ""
    for each in words:
        name, number, _ = each.mark
        before = out.get(name, 0)
        if number <= before:
            find("doubled", f"{each.mark} in {match_id}")
        elif number != before + 1 or (number > 1 and name != last):
            find("disordered", f"{each.mark} in {match_id} comes after {before} of its reply")
        out[name], last = max(before, number), name


def _told(match_id: str, words: Sequence[Words], deeds: Deeds, find: Callable[[str, str], None]) -> None:
    """What the next task was told is what was said and withheld (P3).

    A human's message, or the deletion of all that was to be answered, ends the turn that was to be told. Then nothing
    has to be told.
    """
    before: Words | None = None
    out = 0
    for each in words:
        if not each.is_first:
            out += 1
            continue
        due = Told()
        if before is not None and out < before.mark.of:
            name, _, count = before.mark
            marks = [str(Mark(name, number, count)) for number in range(1, count + 1)]
            due = Told(tuple(marks[:out]), tuple(marks[out:]))
        if each.told != due and not (each.told == Told() and (deeds.humans or _deletes(deeds))):
            find("misremembered", f"{each.mark} in {match_id} was told {each.told}, and not {due}")
        before, out = each, 1


def unfinished(
    words: Sequence[Words], written: Collection[Sent], covers: Mapping[str, Sequence[Sent]], deeds: Deeds
) -> list[Mark]:
    """Return the last messages of replies whose rest is still to come: nothing can have interrupted them (P2).

    A human ends a reply, and so does the deletion of all that it covers.
    """
    found = []
    known: set[str] = set()
    for number, each in enumerate(words):
        known.update(note.message_id for note in covers.get(each.message.message_id, ()))
        name, place, count = each.mark
        goes_on = number + 1 < len(words) and words[number + 1].mark.name == name
        if place == count or goes_on or deeds.humans or _deletes(deeds):
            continue
        if all(note.message_id in known for note in written):
            found.append(each.mark)
    return found


def outdated(
    note: Sent, quote: str, by: Message, changes: Sequence[Change], over: Callable[[float, float], float]
) -> bool:
    """Whether a reply quotes a message as it stood before a change that committed before the delivery's look (X1).

    Parameters:
      over: seconds from a time to another beyond those that the look may lie before the reply's `created_at`.
    """
    ordered = sorted(changes, key=lambda change: change.made)
    texts = [note.content, *(change.content for change in ordered)]
    later = ordered[texts.index(quote) :] if quote in texts else []
    return any(
        change.returned is not None and over(change.returned.timestamp(), by.created_at.timestamp()) > 0
        for change in later
    )


def _deletes(deeds: Deeds) -> bool:
    return any(change.content is None for changes in deeds.changes.values() for change in changes)


def _is_before(human: Message, ours: Message) -> bool:
    """Whether a human's message had committed before one of ours did."""
    if human.committed is None or ours.committed is None:
        return False
    return human.committed < ours.committed
