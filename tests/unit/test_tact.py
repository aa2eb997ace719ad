"""The books of a run with tact find every kind of fault, and no fault where there is none."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from tests.chaos.faults import Target
from tests.chaos.indicator import Lamps, Look
from tests.chaos.nemesis import Band
from tests.support.ledger import Change, Ledger, Message, Sent, Terms, check
from tests.support.tact import Mark, Tact, Told

START: Final = datetime(2026, 12, 1, 12, tzinfo=UTC)
TEXT: Final = "a machine"
COLUMNS: Final = (
    "lost", "doubled", "disordered", "forbidden", "early", "foreign", "stale", "spoken_over", "undisclosed",
    "misremembered",
)  # fmt: skip


def at(seconds: float) -> datetime:
    """Return a moment, in seconds from the start."""
    return START + timedelta(seconds=seconds)


def sent(content: str, seconds: float) -> Sent:
    """Note a message."""
    return Sent(f"id {content}", "M", content, at(seconds), at(seconds + 0.01), at(seconds + 0.01))


def said(seconds: float, *lines: str) -> Message:
    """Return the row of a message of the bot."""
    return Message(f"said {lines} {seconds}", "M", "\n".join(lines), at(seconds), at(seconds + 0.01))


def part(seconds: float, number: int, *lines: str, name: str = "r", of: int = 3) -> Message:
    """Return the row of one message of a reply."""
    return said(seconds, *lines, str(Mark(name, number, of)))


def changed(note: Sent, content: str | None, seconds: float) -> Change:
    """Note a change."""
    return Change(note.message_id, content, at(seconds), at(seconds), at(seconds + 0.01))


def faults(
    notes: list[Sent],
    *rows: Message,
    humans: tuple[Sent, ...] = (),
    changes: tuple[Change, ...] = (),
    disclosing: bool = False,
) -> dict[str, int]:
    """Return the columns of the books that are not zero."""
    deleted = {change.message_id for change in changes if change.content is None}
    table = [
        Message(note.message_id, "M", note.content, note.began, note.returned)
        for note in (*notes, *humans)
        if note.message_id not in deleted
    ]
    tact = Tact(humans, changes, 5.0, TEXT, frozenset(["M"] if disclosing else []))
    ledger: Ledger = check([*table, *rows], notes, Terms(1.0, max_merges=3), tact=tact)
    return {column: count for column in COLUMNS if (count := getattr(ledger, column))}


A: Final = sent("a", 0)
B: Final = sent("b", 2.5)
HUMAN: Final = sent("human", 2)
WHOLE: Final = (part(1.1, 1, "a"), part(2, 2), part(3, 3))


def test_a_reply_of_three_messages_is_whole() -> None:
    """Three messages in their order are one reply."""
    assert faults([A], *WHOLE) == {}


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (WHOLE[:2], {"lost": 1}),
        ((*WHOLE, part(4, 3)), {"doubled": 1}),
        ((WHOLE[0], part(2, 3), part(3, 2)), {"disordered": 1, "doubled": 1, "lost": 1}),
    ],
    ids=["no end", "twice", "out of order"],
)
def test_a_reply_that_is_not_whole_is_found(rows: tuple[Message, ...], found: dict[str, int]) -> None:
    """A message of a reply that is missing without a cause, comes twice or too early is a fault."""
    assert faults([A], *rows) == found


def test_a_newer_message_withholds_the_rest_and_the_next_task_is_told() -> None:
    """A rest that comes all the same is stale, and a task that is told something else is found."""
    told = Told(tuple(map(str, [Mark("r", 1, 3), Mark("r", 2, 3)])), (str(Mark("r", 3, 3)),))
    answer = part(4.5, 1, "b", *told.lines, name="s", of=1)
    assert faults([A, B], *WHOLE[:2], answer) == {}
    assert faults([A, B], *WHOLE[:2], part(4.5, 1, "b", name="s", of=1)) == {"misremembered": 1}
    assert faults([A, B], *WHOLE, part(4.5, 1, "b", name="s", of=1)) == {"stale": 1}


def test_a_human_silences_the_bot_and_answers() -> None:
    """After a human's message the bot says nothing until its pause is over, and never answers what came before."""
    answer = part(8, 1, "b", name="s", of=1)
    assert faults([A, B], answer, humans=(HUMAN,)) == {}
    assert faults([A, B], *WHOLE, answer, humans=(HUMAN,)) == {"spoken_over": 1, "stale": 1}
    assert faults([A], part(8, 1, "a", of=1), humans=(HUMAN,)) == {"doubled": 1}
    assert faults([A, B], humans=(HUMAN,)) == {"lost": 1}


def test_the_disclosure_comes_once_and_first() -> None:
    """A disclosure that is missing, doubled or late is found, and so is one that nothing follows."""
    first = said(1.09, TEXT)
    assert faults([A], first, *WHOLE, disclosing=True) == {}
    for rows in (WHOLE, (first, said(2.5, TEXT), *WHOLE), (said(2.5, TEXT), *WHOLE)):
        assert faults([A], *rows, disclosing=True) == {"undisclosed": 1}


def test_an_answer_to_a_changed_text_is_stale() -> None:
    """A reply may quote an edited or deleted message only as it stood just before its delivery."""
    edit, deletion = changed(A, "a2", 0.5), changed(A, None, 0.5)
    assert faults([A], part(1.1, 1, "a2", of=1), changes=(edit,)) == {}
    assert faults([A], part(1.1, 1, "a", of=1), changes=(edit,)) == {"stale": 1}
    assert faults([A], part(1.1, 1, "a", of=1), changes=(replace(edit, returned=None),)) == {}
    assert faults([A], part(1.1, 1, "a", of=1), changes=(deletion,)) == {"stale": 1}
    assert faults([A], changes=(deletion,)) == {}


def test_an_indicator_that_stays_on_is_found() -> None:
    """It may be on while a turn types, 5 s longer in calm, and 15 s after a fault; never unknown to the bridge."""

    def found(*looks: Look, bands: tuple[Band, ...] = (), held: tuple[tuple[str, float, float], ...] = ()) -> int:
        lamps = Lamps()
        for second, look in enumerate(looks, start=100):
            lamps.look([look], float(second), bands, held)
        return len(lamps.findings)

    on, left, forgotten = (
        Look("M", typing=True, known=True),
        Look("M", typing=False, known=True),
        Look("M", typing=False, known=False),
    )
    assert found(*[on] * 60) == 0
    assert found(on, *[left] * 6) == 0
    assert found(on, *[left] * 9) == 1
    assert found(on, forgotten) == 1
    assert found(on, *[left] * 9, held=(("M", 100.0, 104.0),)) == 0
    fault = Band("worker-kill", Target.WORKER, 99.0, 103.0)
    assert found(on, *[left] * 16, bands=(fault,)) == 0
    assert found(on, *[left] * 20, bands=(fault,)) == 1
