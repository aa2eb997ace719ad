"""The books of a run with faults, and the recoveries, over rows that are made up."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from tests.chaos.faults import Target
from tests.chaos.nemesis import Band
from tests.chaos.recovery import frozen, longest_wait_in_calm, recoveries, verdict
from tests.chaos.script import Match
from tests.support.ledger import OPENER, Ledger, Message, Sent, Terms, Waited, check

TALK = Match(1, str(UUID(int=1)), person=1, bot=1, two_people=False)
PEOPLE = Match(2, str(UUID(int=2)), person=1, bot=1, two_people=True)


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _sent(content: str, began: float, returned: float | None = None, match: Match = TALK) -> Sent:
    end = began + 0.01 if returned is None else returned
    return Sent(f"id {content}", match.match_id, content, _at(began), _at(began + 0.005), _at(end))


def _said(content: str, at: float, match: Match = TALK) -> Message:
    return Message(f"said {content} {at}", match.match_id, content, _at(at))


def _judge(sent: list[Sent], said: list[Message], bands: tuple[Band, ...] = (), met: tuple[Match, ...] = ()) -> Ledger:
    rows = [Message(note.message_id, note.match_id, note.content, note.began) for note in sent] + said
    people = {match.match_id for match in met if match.two_people}
    terms = Terms(grouping_delay=1.0, max_merges=2, frozen=frozen(bands))
    return check(rows, sent, terms, owed=[match.match_id for match in met], people=people)


def test_a_good_conversation_passes() -> None:
    """Answered once, in order, in time: nothing is found, and the lateness is what it is."""
    ledger = _judge([_sent("1", 10), _sent("2", 10.5)], [_said(OPENER, 5), _said("1\n2", 11.51)], met=(TALK,))
    assert ledger.faults == 0
    assert (ledger.sent, ledger.replies, ledger.openers) == (2, 1, 1)
    assert 0.49 < ledger.late_p99 < 0.51
    assert verdict(ledger, 3).startswith("sent=2 lost=0 doubled=0 ")


def test_a_message_without_an_answer_is_lost() -> None:
    """What no reply covers is lost."""
    assert _judge([_sent("1", 10), _sent("2", 20)], [_said("1", 11.1)]).lost == 1


def test_a_match_without_a_word_is_lost() -> None:
    """A match in which nobody ever spoke owes its first word; one between two people does not."""
    assert _judge([], [], met=(TALK, PEOPLE)).lost == 1


def test_an_answer_to_nobody_is_forbidden() -> None:
    """A bot that speaks between two people, or answers what was rolled back, does what it must not."""
    assert _judge([_sent("1", 10, match=PEOPLE)], [_said("1", 11.1, PEOPLE)], met=(PEOPLE,)).forbidden == 1
    assert _judge([_sent("1", 10)], [_said("1\nrolled back", 11.1)]).foreign == 1


def test_a_reply_that_ignores_a_committed_message_is_stale() -> None:
    """A message that was committed well before a reply has to be in it."""
    assert _judge([_sent("1", 10), _sent("2", 12)], [_said("1", 12.5), _said("2", 13.5)]).stale == 1
    assert _judge([_sent("1", 10), _sent("2", 12)], [_said("1", 12.1), _said("2", 13.5)]).stale == 0


def test_a_frozen_postgres_excuses() -> None:
    """While PostgreSQL stands still between its look and its commit, no delivery can look again."""
    frozen = Band("postgres-freeze", Target.POSTGRES, 12.05, 17.0, freezes_postgres=True)
    said = [_said("1", 17.1), _said("2", 18.5)]
    assert _judge([_sent("1", 10), _sent("2", 12)], said).stale == 1
    assert _judge([_sent("1", 10), _sent("2", 12)], said, (frozen,)).stale == 0


def test_a_reply_that_was_overtaken_too_often_may_ignore() -> None:
    """After MAX_MERGES a reply is delivered whatever comes; it covers more messages than that."""
    sent = [_sent("1", 10), _sent("2", 11.2), _sent("3", 12.4), _sent("4", 13)]
    assert _judge(sent, [_said("1\n2\n3", 13.6), _said("4", 15)]).stale == 0
    assert _judge(sent, [_said("1\n2", 11.3), _said("3", 13.6), _said("4", 15)]).stale == 1


def test_a_recovery_counts_from_the_healing() -> None:
    """What was due during a fault is caught up with after it; what was due long after is not its business."""
    band = Band("redis-kill", Target.REDIS, 10.0, 14.0)
    waited = [Waited(9.0, 9.1), Waited(11.0, 16.5), Waited(15.0, 15.1), Waited(30.0, 60.0), Waited(12.0, None)]
    [recovery] = recoveries([band], waited)
    assert recovery.catch_up == 2.5
    assert recovery.unanswered == 1


def test_a_wait_in_calm_has_no_excuse() -> None:
    """Only what is overdue after the last fault counts, from its healing or its own time on."""
    bands = [Band("redis-kill", Target.REDIS, 10.0, 14.0), Band("worker-freeze", Target.WORKER, 12.0, 20.0)]
    waited = [Waited(11.0, 16.5), Waited(12.0, 23.0), Waited(21.0, 23.5), Waited(22.0, None)]
    assert longest_wait_in_calm(bands, waited) == (3.0, "worker-freeze")
