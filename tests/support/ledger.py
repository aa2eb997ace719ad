"""The books of a run: were all messages answered, once, in order, in time, in the right place?

Where bots have tact, tests/support/tact.py adds what that means.

It is pure and independent of the bridge: `check` reads rows of the app's table `messages` and what the writers noted,
and nothing else. It needs RESPONDER=echo, whose replies quote what they cover, one content a line. So each content has
to be unique and without a line break.

It compares times of the writers and of PostgreSQL, so both have to run on one machine. Where an order cannot be known
(two commits under way at the same time), nothing is counted as a fault.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.support.tact import Deeds, Tact, Words, examine, outdated, read, unfinished

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

OPENER: Final = "bonjour"
"""What RESPONDER=echo says first after a match."""

STALE_MARGIN_SECONDS: Final = 0.25
"""A reply bears the time of its INSERT; the last look at the conversation was a little earlier."""

_FINDINGS_SHOWN: Final = 20


class Dot(NamedTuple):
    """A reply in a picture: when its group began, how late it was in seconds, and the match."""

    at: float
    late: float
    match_id: str


class Waited(NamedTuple):
    """A message: when it should have been answered at the latest, and when it was; times as of time.time()."""

    due: float
    answered: float | None


@dataclass(frozen=True, slots=True)
class Terms:
    """What a run lets a reply take.

    Attributes:
      grouping_delay: GROUPING_DELAY, in seconds.
      pause: the longest pause before a delivery, in seconds.
      max_merges: MAX_MERGES; None if no reply of the run is overtaken so often.
      frozen: times in which PostgreSQL stood still, so that no delivery could look again.
    """

    grouping_delay: float
    pause: float = 0.0
    max_merges: int | None = None
    frozen: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """A row of `messages`. `committed`: when its transaction committed, if PostgreSQL tracks that."""

    message_id: str
    match_id: str
    content: str
    created_at: datetime
    committed: datetime | None = None


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
class Change:
    """An edit or a deletion of a message that had committed; what was rolled back on purpose is left out.

    Attributes:
      content: the new text; None: it was deleted.
      began: before its transaction's first statement.
      made: after its statement returned, which waits for earlier changes of the message.
      returned: after its COMMIT returned; None if it is in doubt.
    """

    message_id: str
    content: str | None
    began: datetime
    made: datetime
    returned: datetime | None


@dataclass(frozen=True, slots=True)
class Ledger:
    """What was found; see the promises I1 to I7.

    Attributes:
      sent: messages that were committed.
      replies, openers: what the bots said.
      lost: messages that no reply covers, or that have vanished from the table, and matches that owe a word (I1); rests
        of replies that nothing interrupted.
      doubled: messages that are covered more than once (I2).
      disordered: replies that cover a message committed before one that was covered earlier (I3).
      forbidden: openers after the match's first message or after its first opener (I4); words of a bot between people.
      early: replies less than GROUPING_DELAY after the first message they cover (I5).
      foreign: lines of replies that were not written in that conversation.
      stale: replies that ignore a message committed before their delivery began, except after MAX_MERGES (I7); messages
        of a reply after a newer one (P2); replies to a text that was edited or deleted before (X1).
      spoken_over: words of a bot that committed after a human wrote in its name, before the pause was over (H2, H4).
      undisclosed: conversations without exactly one disclosure before all other words of the bot (L1).
      misremembered: replies whose task did not tell what was said and withheld of the one before (P3).
      several: replies of several messages.
      interrupted: those of them that ended before the last one.
      late_p50, late_p99, late_max: seconds from the end of a group's delay and pause to its reply.
      findings: the first of the faults, in words.
      dots, waited: for pictures and reports.
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
    spoken_over: int
    undisclosed: int
    misremembered: int
    several: int
    interrupted: int
    late_p50: float
    late_p99: float
    late_max: float
    findings: tuple[str, ...]
    dots: tuple[Dot, ...] = field(repr=False)
    waited: tuple[Waited, ...] = field(repr=False)

    @property
    def faults(self) -> int:
        """How many promises were broken, all kinds together."""
        return (
            self.lost + self.doubled + self.disordered + self.forbidden + self.early + self.foreign + self.stale
            + self.spoken_over + self.undisclosed + self.misremembered
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
    terms: Terms,
    *,
    owed: Iterable[str] = (),
    people: Collection[str] = (),
    tact: Tact | None = None,
) -> Ledger:
    """Draw up the books.

    Parameters:
      messages: every row of `messages`.
      sent: what the writers noted. Every other row of `messages` counts as said by a bot.
      owed: matches in which the bot has to speak first, unless the person does.
      people: matches between two people, in which no bot may speak.
      tact: what was noted beside messages.
    """
    tact = tact or Tact()
    noted = {each.message_id: each for each in sent}
    deleted = {change.message_id for change in tact.changes if change.content is None}
    conversations, stored = _sort(messages, noted, tact)

    books = _Books(terms, tact)
    for note in (note for note in noted.values() if note.message_id not in stored):
        if note.message_id in deleted:
            conversations[note.match_id].write(note)
        elif note.returned is not None:
            books.find("lost", f"{note.content} was committed and has vanished")
    for match_id in set(owed).difference(conversations, people):
        books.find("lost", f"the first word in {match_id}")
    for match_id in conversations.keys() & set(people):
        books.enter_people(match_id, conversations.pop(match_id))
    for match_id, conversation in conversations.items():
        books.enter(match_id, conversation)
    return books.close(conversations.values())


def _sort(
    messages: Iterable[Message], noted: Mapping[str, Sent], tact: Tact
) -> tuple[defaultdict[str, _Conversation], set[str]]:
    """Return the conversations, and the ids of the noted messages that stand in the table."""
    conversations: defaultdict[str, _Conversation] = defaultdict(_Conversation)
    humans = {each.message_id: each for each in tact.humans}
    for change in tact.changes:
        if (note := noted.get(change.message_id)) is not None:
            conversations[note.match_id].deeds.changes[change.message_id].append(change)
    stored = set()
    for message in messages:
        conversation = conversations[message.match_id]
        if (note := noted.get(message.message_id)) is not None:
            stored.add(message.message_id)
            conversation.write(note)
        elif (human := humans.get(message.message_id)) is not None:
            conversation.deeds.humans.append((human, message))
        elif message.content == tact.disclosure and message.match_id in tact.disclosing:
            conversation.deeds.disclosures.append(message)
        elif message.content == OPENER:
            conversation.openers.append(message)
        else:
            conversation.replies.append(message)
    return conversations, stored


@dataclass(slots=True)
class _Conversation:
    written: dict[str, Sent] = field(default_factory=dict)  # by id
    texts: dict[str, str] = field(default_factory=dict)  # what messages said at any time, and their ids
    replies: list[Message] = field(default_factory=list)
    openers: list[Message] = field(default_factory=list)
    deeds: Deeds = field(default_factory=Deeds)

    def write(self, note: Sent) -> None:
        """Add a message of a person, as it was sent and as it was edited."""
        self.written[note.message_id] = note
        self.texts[note.content] = note.message_id
        for change in self.deeds.changes.get(note.message_id, ()):
            if change.content is not None:
                self.texts[change.content] = note.message_id


class _Books:
    """Goes through one conversation after the other and counts."""

    def __init__(self, terms: Terms, tact: Tact) -> None:
        self._terms = terms
        self._tact = tact
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._dots: list[Dot] = []
        self._waited: list[Waited] = []
        self._findings: list[str] = []

    def find(self, fault: str, words: str) -> None:
        """Count a fault."""
        self._counts[fault] += 1
        if len(self._findings) < _FINDINGS_SHOWN:
            self._findings.append(f"{fault}: {words}")

    def enter_people(self, match_id: str, conversation: _Conversation) -> None:
        """Count what a bot said between two people."""
        for message in conversation.replies + conversation.openers:
            self.find("forbidden", f"{message.message_id} was said between two people in {match_id}")

    def enter(self, match_id: str, conversation: _Conversation) -> None:
        """Count what is wrong in a conversation."""
        written, deeds = conversation.written, conversation.deeds
        covered: dict[str, float] = {}  # when each message was answered
        groups: dict[str, list[Sent]] = {}  # what each message of the bot covers
        latest: datetime | None = None  # the latest beginning of what is covered so far
        words = [read(reply) for reply in sorted(conversation.replies, key=lambda each: each.created_at)]
        for each in words:
            reply = each.message
            name = f"reply {reply.message_id} in {match_id}"
            group = groups[reply.message_id] = self._cover(name, match_id, each, conversation, covered)
            disordered = False
            for note in group:
                disordered |= latest is not None and note.returned is not None and note.returned < latest
                latest = note.began if latest is None else max(latest, note.began)
            if disordered:
                self.find("disordered", f"{name} covers what was committed before something covered earlier")
            self._time(name, reply, group, conversation)
            if not each.is_first or not self._worn_out(reply, group, conversation, covered):
                self._freshness(name, reply, conversation, covered)
                self._outdated(name, each, conversation)
        for message_id in written.keys() - covered:
            if deeds.deleted(message_id) is None and not deeds.answered_by_human(written[message_id]):
                self.find("lost", f"{written[message_id].content} in {match_id}")
        for mark in unfinished(words, written.values(), groups, deeds):
            self.find("lost", f"the rest of the reply after {mark} in {match_id}")
        self._count_parts(words)
        self._wait(conversation, covered)
        self._first_words(match_id, conversation)
        examine(match_id, words, conversation.openers, groups, deeds, tact=self._tact, find=self.find)

    def _cover(
        self, name: str, match_id: str, words: Words, conversation: _Conversation, covered: dict[str, float]
    ) -> list[Sent]:
        """Return the messages that a message of the bot covers, and note when."""
        group = []
        for line in words.quotes:
            message_id = conversation.texts.get(line)
            if message_id is None:
                self.find("foreign", f"{name} says {line!r}")
            elif message_id in covered:
                self.find("doubled", f"{line} in {match_id}")
            else:
                covered[message_id] = words.message.created_at.timestamp()
                group.append(conversation.written[message_id])
        return group

    def _count_parts(self, words: Sequence[Words]) -> None:
        """Count the replies of several messages, and those that ended before their last one."""
        several = {each.mark.name for each in words if each.mark.of > 1}
        whole = {each.mark.name for each in words if each.mark.number == each.mark.of > 1}
        self._counts["several"] += len(several)
        self._counts["interrupted"] += len(several - whole)

    def _wait(self, conversation: _Conversation, covered: dict[str, float]) -> None:
        for message_id, note in conversation.written.items():
            deeds = conversation.deeds
            if message_id not in covered and (deeds.deleted(message_id) or deeds.answered_by_human(note)):
                continue
            if note.returned is not None:
                due = note.returned.timestamp() + self._terms.grouping_delay + self._terms.pause
                self._waited.append(Waited(due, covered.get(message_id)))

    def _time(self, name: str, reply: Message, group: Sequence[Sent], conversation: _Conversation) -> None:
        if not group:
            return
        delay = self._terms.grouping_delay
        deeds = conversation.deeds
        began = min(note.began for note in group)
        # A message that was deleted may have opened the group, and a pause ends it.
        opened = [note.began for note in conversation.written.values() if deeds.deleted(note.message_id)]
        if reply.created_at < min([began, *opened]) + timedelta(seconds=delay) and not deeds.is_paused(
            began, reply.created_at, self._tact.pause
        ):
            self.find("early", name)
        first = min(note.returned or note.began for note in group)
        late = (reply.created_at - first).total_seconds() - delay - self._terms.pause
        self._dots.append(Dot(first.timestamp(), max(0.0, late), reply.match_id))

    def _worn_out(
        self, reply: Message, group: Sequence[Sent], conversation: _Conversation, covered: Collection[str]
    ) -> bool:
        """Whether the reply may have been overtaken MAX_MERGES times, and so was delivered all the same.

        Each overtaking adds a group of its own, with a first message after the delay of the one before. A change of a
        message overtakes at any time. What is deleted, or answered by a human, may have overtaken it before.
        """
        merges, deeds = self._terms.max_merges, conversation.deeds
        changed = deeds.changed_before(reply.created_at)
        others = [
            note
            for message_id, note in conversation.written.items()
            if message_id not in covered
            and note.began < reply.created_at
            and (deeds.deleted(message_id) is not None or deeds.answered_by_human(note))
        ]
        if merges is None or not group or len(group) + len(others) + changed <= merges:
            return False
        begun = [note.began.timestamp() for note in (*group, *others)]
        return max(begun) - min(begun) >= self._terms.grouping_delay * (merges - 1 - changed)

    def _freshness(self, name: str, reply: Message, conversation: _Conversation, covered: Collection[str]) -> None:
        deeds = conversation.deeds
        ignored = [
            note.content
            for message_id, note in conversation.written.items()
            if message_id not in covered
            and note.returned is not None
            and self._awake(note.returned.timestamp(), reply.created_at.timestamp()) > STALE_MARGIN_SECONDS
            and ((deletion := deeds.deleted(message_id)) is None or deletion.began > reply.created_at)
            and not deeds.answered_by_human(note)
        ]
        if ignored:
            self.find("stale", f"{name} ignores {', '.join(ignored)}")

    def _outdated(self, name: str, words: Words, conversation: _Conversation) -> None:
        def over(since: float, until: float) -> float:
            return self._awake(since, until) - STALE_MARGIN_SECONDS

        for line in words.quotes:
            if (message_id := conversation.texts.get(line)) is not None:
                changes = conversation.deeds.changes.get(message_id, ())
                if outdated(conversation.written[message_id], line, words.message, changes, over):
                    self.find("stale", f"{name} answers {line}, which was changed before")

    def _awake(self, since: float, until: float) -> float:
        """Seconds between two times in which PostgreSQL was not frozen."""
        frozen = sum(max(0.0, min(until, end) - max(since, begin)) for begin, end in self._terms.frozen)
        return until - since - frozen

    def _first_words(self, match_id: str, conversation: _Conversation) -> None:
        inserted = [
            note.inserted
            for note in conversation.written.values()
            if note.inserted is not None and conversation.deeds.deleted(note.message_id) is None
        ]
        for number, opener in enumerate(sorted(conversation.openers, key=lambda each: each.created_at)):
            if number > 0:
                self.find("forbidden", f"opener {number + 1} in {match_id}")
            elif inserted and min(inserted) < opener.created_at:
                self.find("forbidden", f"the opener in {match_id} comes after a message")

    def close(self, conversations: Iterable[_Conversation]) -> Ledger:
        """Return the result."""
        everything = list(conversations)
        late = sorted(dot.late for dot in self._dots)
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
            spoken_over=self._counts["spoken_over"],
            undisclosed=self._counts["undisclosed"],
            misremembered=self._counts["misremembered"],
            several=self._counts["several"],
            interrupted=self._counts["interrupted"],
            late_p50=_percentile(late, 0.5),
            late_p99=_percentile(late, 0.99),
            late_max=_percentile(late, 1),
            findings=tuple(self._findings),
            dots=tuple(self._dots),
            waited=tuple(self._waited),
        )


def _percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share does not exceed; 0 if there is none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
