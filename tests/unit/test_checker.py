"""The checker of acceptance and chaos runs finds every kind of fault, and no fault where there is none."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from tests.support.ledger import Ledger, Message, Sent, Terms, check

DELAY: Final = 15.0
START: Final = datetime(2026, 11, 24, 12, tzinfo=UTC)
COLUMNS: Final = ("lost", "doubled", "disordered", "forbidden", "early", "foreign", "stale")


def at(seconds: float) -> datetime:
    """Return a moment, in seconds from the start."""
    return START + timedelta(seconds=seconds)


def sent(content: str, seconds: float, *, match: str = "M", took: float = 0.01) -> Sent:
    """Note a message that was written at `seconds`, its commit returning after `took`."""
    return Sent(f"id {content}", match, content, at(seconds), at(seconds + took), at(seconds + took))


def stored(note: Sent) -> Message:
    """Return the row of a message that was sent."""
    return Message(note.message_id, note.match_id, note.content, note.began)


def said(text: str, seconds: float, *, match: str = "M") -> Message:
    """Return the row of a reply."""
    return Message(f"reply {text} {seconds}", match, text, at(seconds))


def books(notes: list[Sent], *replies: Message) -> Ledger:
    """Draw up the books of a run in which everything sent was stored."""
    return check([*map(stored, notes), *replies], notes, Terms(DELAY))


def faults(ledger: Ledger) -> dict[str, int]:
    """Return the columns that are not zero."""
    return {column: count for column in COLUMNS if (count := getattr(ledger, column))}


A: Final = sent("a", 0)
B: Final = sent("b", 1)
C: Final = sent("c", 20)


def test_a_run_without_a_fault() -> None:
    """Two groups that are answered in order and in time leave every column empty, and their lateness is measured."""
    ledger = books([A, B, C], said("bonjour", -5), said("a\nb", 15.11), said("c", 35.51))

    assert faults(ledger) == {}
    assert (ledger.sent, ledger.replies, ledger.openers, ledger.faults) == (3, 2, 1, 0)
    assert (ledger.late_p50, ledger.late_p99, ledger.late_max) == pytest.approx((0.1, 0.5, 0.5))


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ([said("a", 15.1)], {"lost": 1, "stale": 1}),
        ([said("a\nb", 15.1), said("b", 16.1)], {"doubled": 1}),
        ([said("a\nb", 15.1), said("a\nb", 15.2)], {"doubled": 2}),
        ([said("a\nb\nb", 15.1)], {"doubled": 1}),
        ([said("b\na", 15.1)], {"disordered": 1}),
        ([said("b", 16.1), said("a", 16.2)], {"disordered": 1, "stale": 1}),
        ([said("a\nb", 14.9)], {"early": 1}),
        ([said("a\nb", 15.1), said("c", 15.2)], {"foreign": 1}),
        ([said("a\nb\n", 15.1)], {"foreign": 1}),
        ([said("a\nb", 15.1), said("bonjour", 0.5)], {"forbidden": 1}),
        ([said("a\nb", 15.1), said("bonjour", -2), said("bonjour", -1)], {"forbidden": 1}),
    ],
)
def test_each_fault_is_found(replies: list[Message], expected: dict[str, int]) -> None:
    """A conversation of two messages with one thing wrong counts exactly that."""
    assert faults(books([A, B], *replies)) == expected


def test_a_reply_in_another_conversation_is_foreign() -> None:
    """What was written elsewhere is not covered by a reply here."""
    other = sent("other", 0, match="N")

    assert faults(books([A, other], said("a", 15.1), said("other", 15.1))) == {"foreign": 1, "lost": 1}


def test_a_committed_message_that_has_vanished_is_lost() -> None:
    """A commit that had returned has to be found again."""
    assert faults(check([], [A], Terms(DELAY))) == {"lost": 1}


def test_a_commit_in_doubt_counts_if_it_stands_in_the_table() -> None:
    """A message whose commit nobody saw return is owed an answer if it is there, and nothing if it is not."""
    doubtful = replace(A, inserted=None, returned=None)

    assert faults(check([], [doubtful], Terms(DELAY))) == {}
    assert faults(check([stored(doubtful)], [doubtful], Terms(DELAY))) == {"lost": 1}


def test_commits_that_overlap_have_no_order() -> None:
    """Of two messages that were under way at the same time either may be answered first."""
    slow = sent("slow", 0, took=16)

    assert faults(books([slow, B], said("b\nslow", 16.2))) == {}
    assert faults(books([slow, B], said("b", 16.1), said("slow", 31.1))) == {}


def test_a_commit_just_before_the_reply_may_be_too_late_for_its_last_look() -> None:
    """Within the margin the service has the benefit of the doubt; before it, ignoring a message is stale."""
    late = sent("late", 15)

    assert faults(books([A, late], said("a", 15.2), said("late", 30.1))) == {}
    assert faults(books([A, late], said("a", 15.3), said("late", 30.1))) == {"stale": 1}


def test_an_opener_may_cross_a_message_under_way() -> None:
    """An opener is forbidden only after an INSERT that had returned."""
    slow = sent("slow", 0, took=2)

    assert faults(books([slow], said("bonjour", 1.9), said("slow", 17.1))) == {}
    assert faults(books([slow], said("bonjour", 2.1), said("slow", 17.1))) == {"forbidden": 1}


def test_the_first_findings_are_told() -> None:
    """The books name what is wrong, and do not drown a screen."""
    many = [sent(f"m{number}", number) for number in range(100)]
    ledger = books(many)

    assert ledger.lost == 100
    assert len(ledger.findings) == 20
    assert "lost: m" in str(ledger)
