"""Very large conversations and messages: every step stays within its call's own deadline, or says what is too much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import uuid4

from tests.support.rules import LEA

if TYPE_CHECKING:
    from tests.support.rules import Bridge

BURST: Final = 15_000
MEGABYTES: Final = 10

FILL: Final = (
    "INSERT INTO messages (match_id, sender_id, content) SELECT %s, %s, repeat(%s, %s) FROM generate_series(1, %s)"
)


def test_a_long_conversation_of_large_messages_is_handed_out(bridge: Bridge) -> None:
    """Lines of history are cut to 4,000 characters, the message to be answered is whole."""
    match = bridge.match()
    bridge.rows(FILL, match, LEA, "é", MEGABYTES * 1_000_000, 5)
    bridge.group()
    bridge.rows(
        "UPDATE bridge.turns SET state = 'cancelled', reason = 'dropped', due_at = NULL, ended_at = bridge.now()"
    )
    bridge.rows(FILL, match, LEA, "z", MEGABYTES * 1_000_000, 1)
    task = bridge.claim(bridge.pushed(match)).outcome.task
    assert task is not None
    assert [line.content for line in task.history] == ["é" * 4000] * 5
    assert [line.content for line in task.messages] == ["z" * MEGABYTES * 1_000_000]


def test_more_text_than_a_claim_can_carry_ends_dead_and_says_so(bridge: Bridge) -> None:
    """More than 100 MB to answer would be refused or come too late at every claim: the turn is dead at the first."""
    match = bridge.match()
    bridge.rows(FILL, match, LEA, "z", MEGABYTES * 1_000_000, 10)
    turn = bridge.pushed(match)
    outcome = bridge.store.claim(turn, uuid4())
    assert outcome.name == "dead"
    assert bridge.turn(turn).state == "dead"
    assert "100002000 bytes in 10 messages" in str(bridge.turn(turn).last_error)
    bridge.write(match, "et là ?")
    task = bridge.claim(bridge.pushed(match)).outcome.task  # later messages go on
    assert task is not None
    assert [line.content for line in task.messages] == ["et là ?"]


def test_a_burst_of_fifteen_thousand_messages_is_answered(bridge: Bridge) -> None:
    """Grouping, claim and delivery of one conversation's 15,000 messages each end within their call's deadline.

    The steps ran on a small database before, so that the plans that a session keeps were made for it.
    """
    for _ in range(7):
        match = bridge.match()
        bridge.write(match)
        assert bridge.finish(bridge.claim(bridge.pushed(match)), pause=0).name == "answered"
    match = bridge.match()
    bridge.rows(FILL, match, LEA, "z", 2, BURST)
    while bridge.group():
        pass
    claim = bridge.claim(bridge.pushed(match))
    assert claim.outcome.task is not None
    assert len(claim.outcome.task.messages) == BURST
    assert bridge.finish(claim, pause=0).name == "answered"


def test_a_claim_takes_fifteen_thousand_messages_along(bridge: Bridge) -> None:
    """What nobody has grouped yet is taken along within the claim's deadline, too."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match)
    for _ in range(7):
        bridge.write(match)
        claim = bridge.claim(turn)
        bridge.rows("UPDATE bridge.turns SET token = NULL WHERE id = %s", turn)
    bridge.rows(FILL, match, LEA, "z", 2, BURST)
    claim = bridge.claim(turn)
    assert claim.outcome.task is not None
    assert len(claim.outcome.task.messages) == BURST + 8
