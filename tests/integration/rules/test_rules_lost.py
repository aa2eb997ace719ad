"""When a worker cancels a call: its lease is committed otherwise, and nothing else is a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from tests.support.roles import ADMIN
from tests.support.rules import without

if TYPE_CHECKING:
    from uuid import UUID

    from tests.support.rules import Bridge, Claim


def composing(bridge: Bridge) -> Claim:
    """Give a turn that a worker composes."""
    match = bridge.match()
    bridge.write(match)
    return bridge.claimed(match)


def lost(bridge: Bridge, *claims: Claim) -> list[UUID]:
    """Return the tokens that are lost."""
    return bridge.store.lost_leases({claim.token: claim.turn for claim in claims})


@without(("lost_leases", "t.state = 'composing' AND t.token = l.token", "t.state = 'composing'"))
def test_E2_a_lease_that_was_given_away_or_back_is_lost(bridge: Bridge) -> None:
    """Another worker has the turn, or none has; its neighbour keeps its lease."""
    taken = composing(bridge)
    assert lost(bridge, taken) == []
    bridge.rows("UPDATE bridge.turns SET token = %s WHERE id = %s", str(uuid4()), taken.turn)
    returned = composing(bridge)
    bridge.store.release({returned.turn: returned.token})
    kept = composing(bridge)
    assert set(lost(bridge, kept, taken, returned)) == {taken.token, returned.token}


@without(("lost_leases", "t.state = 'composing' AND t.token = l.token", "t.token = l.token OR t.token IS NULL"))
def test_E2_a_turn_that_ended_is_lost(bridge: Bridge) -> None:
    """So is one whose row is gone."""
    ended = composing(bridge)
    bridge.rows("SELECT bridge.cancel_turn(%s, 'superseded')", ended.turn)
    gone = composing(bridge)
    bridge.rows("UPDATE bridge.events SET turn_id = NULL WHERE turn_id = %s", gone.turn)
    bridge.rows("DELETE FROM bridge.turns WHERE id = %s", gone.turn)
    assert set(lost(bridge, ended, gone)) == {ended.token, gone.token}


@without(
    (
        "lost_leases",
        "LEFT JOIN bridge.turns t ON t.id = l.turn",
        "LEFT JOIN LATERAL (SELECT * FROM bridge.turns WHERE id = l.turn FOR NO KEY UPDATE SKIP LOCKED) t ON true",
    ),
    ("lost_leases", "STABLE", "VOLATILE"),
)
def test_E2_a_turn_that_another_session_holds_is_not_lost(bridge: Bridge) -> None:
    """What is not committed may be undone, and the read does not wait for it."""
    claim = composing(bridge)
    other = bridge.session(ADMIN)
    bridge.rows("UPDATE bridge.turns SET token = NULL WHERE id = %s", claim.turn, connection=other)
    assert lost(bridge, claim) == []
    other.commit()
    assert lost(bridge, claim) == [claim.token]
