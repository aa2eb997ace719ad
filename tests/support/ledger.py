"""The books of a run: were all messages answered, once, in order, in time, in the right place?

Pure, and independent of the bridge: `check` reads rows of the app's table `messages` and what the writers noted, and
nothing else. It needs RESPONDER=echo, whose replies quote what they cover, one content a line; so each content has to
be unique and without a line break.

Times of the writers and of PostgreSQL are compared, so both have to run on one machine. Wherever an order cannot be
known for sure (two commits under way at the same time), the service is given the benefit of the doubt.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

OPENER: Final = "bonjour"
"""What RESPONDER=echo says first after a match."""

STALE_MARGIN_SECONDS: Final = 0.25
"""A reply bears the time of its INSERT; the last look at the conversation was a little earlier."""

_FINDINGS_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Message:
    """A row of `messages`."""

    message_id: str
    match_id: str
    content: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that a writer tried to commit; what was rolled back on purpose is left out.

    Attributes:
      began: before the first statement of its transaction.
      inserted: after its INSERT returned; None if that is not known.
      returned: after its COMMIT returned; None if it is in doubt: it counts if it stands in the table.
    """

    message_id: str
    match_id: str
    content: str
    began: datetime
    inserted: datetime | None
    returned: datetime | None


@dataclass(frozen=True, slots=True)
class Ledger:
    """What was found; see the promises I1 to I7.

    Attributes:
      sent: messages that were committed.
      replies, openers: what the bots said.
      lost: messages that no reply covers, or that have vanished from the table (I1).
      doubled: messages that are covered more than once (I2).
      disordered: replies that cover a message committed before one that was covered earlier (I3).
      forbidden: openers after the match's first message or after its first opener (I4).
      early: replies less than GROUPING_DELAY after the first message they cover (I5).
      foreign: lines of replies that were not written in that conversation.
      stale: replies that ignore a message committed before their delivery began (I7). Those delivered after MAX_MERGES
        are counted too: the rows cannot tell them, so a run that counts this must not wear a conversation out.
      late_p50, late_p99, late_max: seconds from the end of a group's delay to its reply.
      findings: the first of the faults, in words.
    """

    sent: int
    replies: int
    openers: int
    lost: int
    doubled: int
    disordered: int
    forbidden: int
    early: int
    foreign: int
    stale: int
    late_p50: float
    late_p99: float
    late_max: float
    findings: tuple[str, ...]

    @property
    def faults(self) -> int:
        """How many promises were broken, all kinds together."""
        return (
            self.lost + self.doubled + self.disordered + self.forbidden + self.early + self.foreign + self.stale
        )  # fmt: skip

    def __str__(self) -> str:
        """Return the books in one line, and one line for each finding."""
        line = (
            f"sent={self.sent} replies={self.replies} openers={self.openers} lost={self.lost} doubled={self.doubled}"
            f" disordered={self.disordered} forbidden={self.forbidden} early={self.early} foreign={self.foreign}"
            f" stale={self.stale} late_p50={self.late_p50:.3f}s late_p99={self.late_p99:.3f}s"
            f" late_max={self.late_max:.3f}s"
        )
        return "\n  ".join((line, *self.findings))


def check(
    messages: Iterable[Message],
    sent: Iterable[Sent],
    grouping_delay: float,
    *,
    stale_margin: float = STALE_MARGIN_SECONDS,
) -> Ledger:
    """Draw up the books.

    Parameters:
      messages: every row of `messages`.
      sent: what the writers noted. Whatever else stands in `messages` counts as said by a bot.
      grouping_delay: GROUPING_DELAY of the run, in seconds.
      stale_margin: seconds between a delivery's last look and the time its reply bears, at most.
    """
    conversations: defaultdict[str, _Conversation] = defaultdict(_Conversation)
    noted = {each.message_id: each for each in sent}
    stored = set()
    for message in messages:
        conversation = conversations[message.match_id]
        if (note := noted.get(message.message_id)) is not None:
            stored.add(message.message_id)
            conversation.written[message.content] = note
        elif message.content == OPENER:
            conversation.openers.append(message)
        else:
            conversation.replies.append(message)

    books = _Books(timedelta(seconds=grouping_delay), timedelta(seconds=stale_margin))
    for note in noted.values():
        if note.message_id not in stored and note.returned is not None:
            books.find("lost", f"{note.content} was committed and has vanished")
    for match_id, conversation in conversations.items():
        books.enter(match_id, conversation)
    return books.close(conversations.values())


@dataclass(slots=True)
class _Conversation:
    written: dict[str, Sent] = field(default_factory=dict)
    replies: list[Message] = field(default_factory=list)
    openers: list[Message] = field(default_factory=list)


class _Books:
    """Goes through one conversation after the other and counts."""

    def __init__(self, delay: timedelta, margin: timedelta) -> None:
        self._delay = delay
        self._margin = margin
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._late: list[float] = []
        self._findings: list[str] = []

    def find(self, fault: str, words: str) -> None:
        """Count a fault."""
        self._counts[fault] += 1
        if len(self._findings) < _FINDINGS_SHOWN:
            self._findings.append(f"{fault}: {words}")

    def enter(self, match_id: str, conversation: _Conversation) -> None:
        """Count what is wrong in a conversation."""
        written = conversation.written
        covered: set[str] = set()
        latest: datetime | None = None  # the latest beginning of what is covered so far
        for reply in sorted(conversation.replies, key=lambda each: each.created_at):
            name = f"reply {reply.message_id} in {match_id}"
            group = []
            for line in reply.content.split("\n"):
                if line not in written:
                    self.find("foreign", f"{name} says {line!r}")
                elif line in covered:
                    self.find("doubled", f"{line} in {match_id}")
                else:
                    covered.add(line)
                    group.append(written[line])
            disordered = False
            for note in group:
                disordered |= latest is not None and note.returned is not None and note.returned < latest
                latest = note.began if latest is None else max(latest, note.began)
            if disordered:
                self.find("disordered", f"{name} covers what was committed before something covered earlier")
            self._time(name, reply, group)
            self._freshness(name, reply, written, covered)
        for content in written.keys() - covered:
            self.find("lost", f"{content} in {match_id}")
        self._first_words(match_id, conversation)

    def _time(self, name: str, reply: Message, group: Sequence[Sent]) -> None:
        if not group:
            return
        if reply.created_at < min(note.began for note in group) + self._delay:
            self.find("early", name)
        committed = [note.returned for note in group if note.returned is not None]
        if committed:
            self._late.append((reply.created_at - min(committed) - self._delay).total_seconds())

    def _freshness(self, name: str, reply: Message, written: dict[str, Sent], covered: set[str]) -> None:
        looked_at = reply.created_at - self._margin
        ignored = [
            content
            for content, note in written.items()
            if content not in covered and note.returned is not None and note.returned < looked_at
        ]
        if ignored:
            self.find("stale", f"{name} ignores {', '.join(ignored)}")

    def _first_words(self, match_id: str, conversation: _Conversation) -> None:
        inserted = [note.inserted for note in conversation.written.values() if note.inserted is not None]
        for number, opener in enumerate(sorted(conversation.openers, key=lambda each: each.created_at)):
            if number > 0:
                self.find("forbidden", f"opener {number + 1} in {match_id}")
            elif inserted and min(inserted) < opener.created_at:
                self.find("forbidden", f"the opener in {match_id} comes after a message")

    def close(self, conversations: Iterable[_Conversation]) -> Ledger:
        """Return the result."""
        everything = list(conversations)
        self._late.sort()
        return Ledger(
            sent=sum(len(each.written) for each in everything),
            replies=sum(len(each.replies) for each in everything),
            openers=sum(len(each.openers) for each in everything),
            lost=self._counts["lost"],
            doubled=self._counts["doubled"],
            disordered=self._counts["disordered"],
            forbidden=self._counts["forbidden"],
            early=self._counts["early"],
            foreign=self._counts["foreign"],
            stale=self._counts["stale"],
            late_p50=_percentile(self._late, 0.5),
            late_p99=_percentile(self._late, 0.99),
            late_max=_percentile(self._late, 1),
            findings=tuple(self._findings),
        )


def _percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share does not exceed; 0 if there is none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
