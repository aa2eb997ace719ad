"""The verdict over a run: the books of tests/support/ledger.py, and what only a run with faults needs.

It reads the app's tables and what the people noted. The bridge's own tables are not looked at.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.support import ledger
from tests.support.ledger import OPENER, Message, Sent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.chaos.nemesis import Band
    from tests.chaos.script import Match

STALE_MARGIN: Final = 0.25
"""Seconds between a delivery's last look and the time its reply bears, at most, while PostgreSQL runs."""

NEVER: Final = 1e9


class Dot(NamedTuple):
    """A reply in the picture: when its group began, how late it was in seconds, and the match."""

    at: float
    late: float
    match_id: str


class Waited(NamedTuple):
    """A message, when it should have been answered at the latest, and when it was; times as of time.time()."""

    due: float
    answered: float | None


@dataclass(frozen=True, slots=True)
class Pace:
    """The run's settings: GROUPING_DELAY, the longest pause before a delivery, and MAX_MERGES."""

    grouping_delay: float
    pause: float
    max_merges: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found. `findings` are the first faults in words; `dots` and `waited` are for reports."""

    sent: int
    replies: int
    openers: int
    lost: int
    doubled: int
    disordered: int
    early: int
    forbidden: int
    stale: int
    late_p99: float
    findings: tuple[str, ...]
    dots: tuple[Dot, ...]
    waited: tuple[Waited, ...]

    @property
    def broken(self) -> int:
        """How many promises were broken."""
        return self.lost + self.doubled + self.disordered + self.early + self.forbidden + self.stale

    def line(self, faults: int) -> str:
        """Return the verdict in one line."""
        return (
            f"sent={self.sent} lost={self.lost} doubled={self.doubled} disordered={self.disordered}"
            f" early={self.early} forbidden={self.forbidden} stale={self.stale} late_p99={self.late_p99:.2f}s"
            f" faults={faults}"
        )


def judge(
    messages: Sequence[Message], sent: Sequence[Sent], met: Iterable[Match], pace: Pace, bands: Sequence[Band] = ()
) -> Verdict:
    """Judge a run.

    Parameters:
      messages: every row of `messages`.
      sent: what the people noted of what they did not roll back on purpose.
      met: the matches that were made.
      bands: the faults, for the times in which PostgreSQL stood still.
    """
    matches = {match.match_id: match for match in {each.match_id: each for each in met}.values()}
    people = {match_id for match_id, match in matches.items() if match.two_people}
    to_bots = [note for note in sent if note.match_id not in people]
    theirs = {note.message_id for note in sent}
    spoken = [message for message in messages if message.message_id not in theirs]

    # Its own look at freshness counts what follows MAX_MERGES, so it is told never to find anything.
    books = ledger.check(
        [message for message in messages if message.match_id not in people],
        to_bots,
        pace.grouping_delay,
        stale_margin=NEVER,
    )
    findings = list(books.findings)
    forbidden = books.forbidden + books.foreign
    for message in spoken:
        if message.match_id in people:
            forbidden += 1
            findings.append(f"forbidden: a bot spoke between two people in {message.match_id}")
    heard = {message.match_id for message in messages}
    silent = [match_id for match_id in matches if match_id not in heard and match_id not in people]
    findings += [f"lost: the first word in {match_id}" for match_id in silent]

    conversations = _conversations(messages, to_bots)
    stale = [words for each in conversations for words in each.stale(pace, bands)]
    findings += stale
    late = sorted(dot.late for each in conversations for dot in each.dots(pace))
    return Verdict(
        sent=books.sent,
        replies=books.replies,
        openers=books.openers,
        lost=books.lost + len(silent),
        doubled=books.doubled,
        disordered=books.disordered,
        early=books.early,
        forbidden=forbidden,
        stale=len(stale),
        late_p99=late[max(0, -(-99 * len(late) // 100) - 1)] if late else 0.0,
        findings=tuple(findings),
        dots=tuple(dot for each in conversations for dot in each.dots(pace)),
        waited=tuple(waited for each in conversations for waited in each.waited(pace)),
    )


class _Reply(NamedTuple):
    at: float
    covers: tuple[Sent, ...]


class _Conversation:
    """One match: what was written to the bot, and its replies in order."""

    def __init__(self, match_id: str, written: Sequence[Sent], spoken: Iterable[Message]) -> None:
        self.match_id = match_id
        self.written = written
        by_content = {note.content: note for note in written}
        self.replies = [
            _Reply(
                message.created_at.timestamp(),
                tuple(by_content[line] for line in message.content.split("\n") if line in by_content),
            )
            for message in sorted(spoken, key=lambda each: each.created_at)
            if message.content != OPENER
        ]

    def stale(self, pace: Pace, bands: Sequence[Band]) -> list[str]:
        """Say which replies ignore a message that had been committed before their delivery began (I7)."""
        found = []
        covered: set[str] = set()
        for reply in self.replies:
            covered.update(note.content for note in reply.covers)
            if _worn_out(reply, pace):
                continue
            ignored = [
                note.content
                for note in self.written
                if note.content not in covered
                and note.returned is not None
                and _awake(note.returned.timestamp(), reply.at, bands) > STALE_MARGIN
            ]
            if ignored:
                at = datetime.fromtimestamp(reply.at, UTC).isoformat()
                found.append(f"stale: the reply at {at} in {self.match_id} ignores {', '.join(ignored)}")
        return found

    def dots(self, pace: Pace) -> list[Dot]:
        """Tell each reply's lateness after its first message, GROUPING_DELAY and pause."""
        dots = []
        for reply in self.replies:
            if reply.covers:
                first = min((note.returned or note.began).timestamp() for note in reply.covers)
                dots.append(Dot(first, max(0.0, reply.at - first - pace.grouping_delay - pace.pause), self.match_id))
        return dots

    def waited(self, pace: Pace) -> list[Waited]:
        """Tell when each message should have been answered, and when it was."""
        answered: dict[str, float] = {}
        for reply in self.replies:
            for note in reply.covers:
                answered.setdefault(note.content, reply.at)
        return [
            Waited(note.returned.timestamp() + pace.grouping_delay + pace.pause, answered.get(note.content))
            for note in self.written
            if note.returned is not None
        ]


def _conversations(messages: Iterable[Message], sent: Iterable[Sent]) -> list[_Conversation]:
    rows = {message.message_id: message for message in messages}
    written: defaultdict[str, list[Sent]] = defaultdict(list)
    theirs = set()
    for note in sent:
        theirs.add(note.message_id)
        if note.message_id in rows:
            written[note.match_id].append(note)
    spoken: defaultdict[str, list[Message]] = defaultdict(list)
    for message in rows.values():
        if message.message_id not in theirs:
            spoken[message.match_id].append(message)
    return [_Conversation(match_id, notes, spoken[match_id]) for match_id, notes in written.items()]


def _worn_out(reply: _Reply, pace: Pace) -> bool:
    """Whether the reply may have been overtaken MAX_MERGES times, and so was delivered all the same.

    Each overtaking adds a group of its own, with a first message after the delay of the one before.
    """
    if len(reply.covers) <= pace.max_merges:
        return False
    begun = [note.began.timestamp() for note in reply.covers]
    return max(begun) - min(begun) >= pace.grouping_delay * (pace.max_merges - 1)


def _awake(since: float, until: float, bands: Sequence[Band]) -> float:
    """Seconds between two times in which PostgreSQL was not frozen."""
    frozen = sum(
        max(0.0, min(until, band.healed or until) - max(since, band.began)) for band in bands if band.freezes_postgres
    )
    return until - since - frozen


@dataclass(frozen=True, slots=True)
class Recovery:
    """How a fault was recovered from.

    Attributes:
      catch_up: seconds from its healing to the last reply that should have been there by then, or soon after.
      unanswered: messages of its time that never got a reply.
      beside: other faults that were there before it was caught up.
    """

    kind: str
    began: float
    healed: float
    catch_up: float
    unanswered: int
    beside: tuple[str, ...]


def recoveries(bands: Sequence[Band], waited: Sequence[Waited], soon: float = 2.0) -> list[Recovery]:
    """Tell of each fault how long it took until everybody had their answer.

    Parameters:
      soon: what should have been answered within so many seconds after the healing counts too.
    """
    found = []
    for band in sorted(bands, key=lambda each: each.began):
        healed = band.healed or band.began
        theirs = [each for each in waited if band.began <= each.due <= healed + soon]
        late = [each.answered - max(healed, each.due) for each in theirs if each.answered is not None]
        catch_up = max(0.0, max(late, default=0.0))
        beside = tuple(
            other.kind
            for other in bands
            if other is not band
            and other.began <= healed + max(soon, catch_up)
            and (other.healed or other.began) >= band.began
        )
        unanswered = sum(each.answered is None for each in theirs)
        found.append(Recovery(band.kind, band.began, healed, catch_up, unanswered, beside))
    return found


def longest_wait_in_calm(bands: Sequence[Band], waited: Sequence[Waited]) -> tuple[float, str]:
    """Return the most seconds for which an answer was overdue while no fault was there, and the fault before."""
    longest = (0.0, "no fault")
    for each in waited:
        if each.answered is None or any(_was_there(band, each.answered) for band in bands):
            continue
        before = [band for band in bands if band.healed is not None and band.healed <= each.answered]
        last = max(before, key=lambda band: band.healed or 0.0, default=None)
        since = each.due if last is None or last.healed is None else max(each.due, last.healed)
        longest = max(longest, (each.answered - since, "no fault" if last is None else last.kind))
    return longest


def _was_there(band: Band, at: float) -> bool:
    return band.began <= at and (band.healed is None or band.healed > at)
