"""A newer message is heard at once: what `overtake` does, how often, and when a reply is left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from bridge_service.machine.answers import Overtaken
from tests.support.roles import ADMIN
from tests.support.rules import CAMILLE, MAX_MERGES, without

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.rules import Bridge, Claim, Taken

NEVER: Final[Taken] = (
    "overtake",
    "FOREACH match_id IN ARRAY v_matches LOOP",
    "FOREACH match_id IN ARRAY '{}'::uuid[] LOOP",
)


OVERTAKE: Final = "SELECT * FROM bridge.overtake(%s::uuid[])"


def composing(bridge: Bridge, text: str = "un") -> tuple[str, Claim]:
    """Give a match, and its turn: a worker composes by a call that can be ended, and the clock stands still."""
    bridge.stop_clock()
    match = bridge.match()
    bridge.write(match, text)
    return match, bridge.claimed(match, plain=False)


def typing(bridge: Bridge) -> tuple[str, Claim]:
    """Give a match, and its turn with a draft that waits for its time."""
    match, claim = composing(bridge)
    assert bridge.finish(claim).name == "typing"
    return match, claim


def texts(claim: Claim) -> list[str]:
    """Return what a claim is to answer."""
    assert claim.outcome.task is not None, claim.outcome
    return [line.content for line in claim.outcome.task.messages]


# E1: at once, by a step of its own


@without(NEVER)
@pytest.mark.parametrize("begin", [composing, typing])
def test_E1_a_newer_message_ends_the_reply_under_way(
    bridge: Bridge, begin: Callable[[Bridge], tuple[str, Claim]]
) -> None:
    """Its call and its draft are worth nothing from then on, and one reply answers both messages."""
    match, claim = begin(bridge)
    bridge.write(match, "deux")
    [event] = bridge.group()
    assert event.beside_active
    assert bridge.store.overtake([match]) == [Overtaken(claim.turn, match, superseded=True, merges=1)]
    assert bridge.store.overtake([match]) == []

    older = bridge.turn(claim.turn)
    assert (older.state, older.reason, older.draft) == ("cancelled", "superseded", None)
    assert bridge.store.renew({claim.turn: claim.token}) == [claim.turn]
    assert bridge.finish(claim).name == "fenced"
    assert bridge.store.fail(claim.turn, claim.token, "no", retry=1, counts=True).name == "fenced"
    again = bridge.claimed(match)
    assert texts(again) == ["un", "deux"]
    assert bridge.finish(again, pause=0).name == "answered"
    assert [sender for sender, _ in bridge.messages(match)].count(CAMILLE) == 1


def test_E1_a_lone_message_has_nothing_to_overtake(bridge: Bridge) -> None:
    """Its grouping says so, and no call is made for it."""
    match = bridge.match()
    bridge.write(match)
    [event] = bridge.group()
    assert not event.beside_active
    assert bridge.store.overtake([match]) == []


@without(("overtake", "FOR NO KEY UPDATE SKIP LOCKED", "FOR NO KEY UPDATE"))
@pytest.mark.parametrize("state", ["composing", "open"])
def test_E1_what_is_locked_is_left_to_the_next_call(bridge: Bridge, state: str) -> None:
    """A conversation that another session holds, in its active or its waiting turn, holds up no other one."""
    bridge.impatient()
    matches = sorted(composing(bridge)[0] for _ in range(3))
    for match in matches:
        bridge.write(match, "deux")
    bridge.group()
    holder = bridge.session(ADMIN)
    lock = "SELECT FROM bridge.turns WHERE match_id = %s AND state = %s FOR NO KEY UPDATE"
    bridge.rows(lock, matches[1], state, connection=holder)

    overtaken = bridge.store.overtake()
    assert [(each.match_id, each.superseded) for each in overtaken] == list(
        zip(matches, (True, False, True), strict=True)
    )
    holder.rollback()
    assert [each.superseded for each in bridge.store.overtake(matches)] == [True]


@without(("finish", "IF bridge.answers(t.kind) THEN", "IF false THEN"))
def test_E1_a_draft_makes_way_as_soon_as_it_is_handed_in(bridge: Bridge) -> None:
    """An `overtake` that met the lock of this step, or a call that cannot be ended, leaves the newer message to it."""
    bridge.stop_clock()
    match = bridge.match()
    bridge.write(match, "un")
    claim = bridge.claimed(match)
    bridge.write(match, "deux")
    bridge.group()
    assert bridge.store.overtake([match]) == []
    assert bridge.finish(claim, pause=60).name == "superseded"
    assert texts(bridge.claimed(match)) == ["un", "deux"]


@without(NEVER)
def test_E1_the_sweep_overtakes_what_no_batch_named(bridge: Bridge) -> None:
    """A scheduler that died between grouping and overtaking leaves it to the next sweep of any scheduler."""
    match, claim = composing(bridge)
    bridge.match()
    bridge.write(match, "deux")
    bridge.group()
    assert [each.turn_id for each in bridge.store.overtake()] == [claim.turn]


def test_E1_an_opener_is_not_overtaken(bridge: Bridge) -> None:
    """A message cancels it when it is grouped (I4)."""
    match = bridge.match(opener=True)
    bridge.typing_opener(match)
    bridge.write(match)
    bridge.group()
    assert bridge.opener(match).reason == "message"
    assert bridge.store.overtake([match]) == []


# E3: how often


@without(("may_supersede", "NOT t.plain AND", ""))
def test_E3_a_call_that_cannot_be_ended_is_not_overtaken(bridge: Bridge) -> None:
    """While it composes it is left alone, and its draft makes way."""
    bridge.stop_clock()
    match = bridge.match()
    bridge.write(match, "un")
    claim = bridge.claimed(match)
    bridge.write(match, "deux")
    bridge.group()
    assert bridge.store.overtake([match]) == []
    with bridge.policy(max_merges=0):
        assert bridge.finish(claim).name == "typing"
    assert [each.superseded for each in bridge.store.overtake([match])] == [True]


@without(("supersede", "older.merges + (older.state = 'typing')::integer", "older.merges + 1"))
def test_E3_a_message_every_two_seconds_leaves_none_unheard(bridge: Bridge) -> None:
    """Calls of 10 s: at most MAX_MERGES are ended, then the bot waits for quiet, and the reply knows every message."""
    bridge.stop_clock()
    match = bridge.match()
    written: list[str] = []
    calls: list[tuple[int, Claim]] = []
    with bridge.policy(grouping_delay=3, grouping_max=20, max_merges=MAX_MERGES):
        for second in range(120):
            if second % 2 == 0 and second <= 40:
                written.append(bridge.write(match))
                bridge.store.group()
                bridge.store.overtake([match])
            if calls and second == calls[-1][0] + 10 and bridge.finish(calls[-1][1], pause=0).name == "answered":
                break
            for push in bridge.push():
                claim = bridge.claim(push.turn_id, plain=False)
                calls += [(second, claim)] * (claim.outcome.name == "claimed")
            if calls:
                bridge.store.renew({calls[-1][1].turn: calls[-1][1].token})
            bridge.advance(1)
    assert bridge.covered(calls[-1][1].turn) == written
    # Ended at 4, 8 and 12; then quiet is waited for, 20 s at most; one draft is thrown away.
    assert [second for second, _ in calls] == [3, 7, 11, 32, 42]
    last = bridge.turn(calls[-1][1].turn)
    assert (last.overtakes, last.merges) == (MAX_MERGES, 1)


@without(("group_events", "waiting.overtakes > 0 AND waiting.state = 'open'", "false"))
def test_E3_after_max_merges_calls_the_next_one_waits_for_quiet(bridge: Bridge) -> None:
    """The window of the waiting turn follows its last message, up to GROUPING_MAX after its first."""
    match, claim = composing(bridge)
    bridge.rows("UPDATE bridge.turns SET overtakes = %s WHERE id = %s", MAX_MERGES - 1, claim.turn)
    due = []
    with bridge.policy(grouping_max=40):
        for _ in range(5):
            bridge.advance(10)
            bridge.write(match)
            bridge.store.group()
            bridge.store.overtake([match])
            [*_, waiting] = bridge.turns(match)
            assert waiting.planned_at == waiting.due_at
            due.append((waiting.due_at - waiting.opened_at).total_seconds())
    assert due == [15, 25, 35, 40, 40]


@without(("may_supersede", "ELSE NOT t.plain AND t.overtakes < v_most", "ELSE NOT t.plain"))
def test_E3_a_person_who_never_stops_ends_no_more_than_max_merges_calls(bridge: Bridge) -> None:
    """The call after that comes to its end, and so somebody who writes all the time is answered in the end."""
    match, claim = composing(bridge)
    bridge.rows("UPDATE bridge.turns SET overtakes = %s WHERE id = %s", MAX_MERGES, claim.turn)
    bridge.write(match)
    bridge.group()
    assert bridge.store.overtake([match]) == []
    assert bridge.finish(claim, pause=0).name == "superseded"


# E4: what the next turn inherits of calls


@without(
    (
        "supersede",
        "older.overtakes + (older.state = 'composing' AND older.token IS NOT NULL)::integer",
        "1",
    )
)
def test_E4_an_overtaken_call_counts_for_the_next_one(bridge: Bridge) -> None:
    """Each call that is ended adds one to what the next turn inherits; merges and failures stay as they were."""
    match, claim = composing(bridge)
    bridge.rows("UPDATE bridge.turns SET attempts = 2, merges = 1 WHERE id = %s", claim.turn)
    for count in (1, 2, 3):
        bridge.write(match)
        bridge.group()
        assert [each.merges for each in bridge.store.overtake([match])] == [count + 1]
        claim = bridge.claim(bridge.pushed(match), plain=False)
        turn = bridge.turn(claim.turn)
        assert (turn.overtakes, turn.merges, turn.attempts) == (count, 1, 2)


# E5 and SECOND_MESSAGE: when a reply is left alone


def _ways(bridge: Bridge, match: str, claim: Claim) -> list[str]:
    """Try the three ways of superseding, then return the names of what came of them."""
    names = [str(each.superseded) for each in bridge.store.overtake([match])]
    bridge.store.release({claim.turn: claim.token})
    again = bridge.claim(claim.turn, plain=False)
    names += [again.outcome.name, bridge.finish(again, pause=5).name]
    bridge.advance(6)
    return [*names, bridge.deliver(claim.turn).name]


@without(("may_supersede", "AND (SELECT w.held FROM bridge.turns w WHERE w.id = p_waiting) IS NULL", ""))
def test_E5_no_reply_goes_into_a_turn_that_is_held(bridge: Bridge) -> None:
    """The older reply is delivered, and the newer message waits."""
    match, claim = composing(bridge)
    later = bridge.write(match, "deux")
    bridge.group()
    bridge.rows("UPDATE bridge.turns SET held = 'limit' WHERE match_id = %s AND state = 'open'", match)
    assert _ways(bridge, match, claim) == ["claimed", "typing", "answered"]
    [_, waiting] = bridge.turns(match)
    assert (waiting.state, bridge.covered(waiting.id)) == ("open", [later])


@without(("may_supersede", "p_policy ->> 'second_message' = 'merge'", "true"))
@pytest.mark.parametrize("grouped", [True, False], ids=["grouped", "not grouped"])
def test_E5_a_bot_that_queues_answers_one_message_after_the_other(bridge: Bridge, *, grouped: bool) -> None:
    """With SECOND_MESSAGE=queue a reply under way is left alone, and the second message is answered next, in order."""
    with bridge.policy(second_message="queue"):
        match, claim = composing(bridge)
        later = bridge.write(match, "deux")
        if grouped:
            bridge.group()
            bridge.advance(14)
            assert _ways(bridge, match, claim) == ["claimed", "typing", "answered"]
        else:
            assert bridge.finish(claim, pause=5).name == "typing"
            bridge.advance(6)
            assert bridge.deliver(claim.turn).name == "answered"
        second = bridge.claimed(match)
        assert bridge.covered(second.turn) == [later]
        assert bridge.finish(second, pause=0).name == "answered"
    assert [text for _, text in bridge.messages(match)] == ["un", "deux", "coucou", "coucou"]


# T8: found by index


@without(("overtake", "AND bridge.is_waiting(w.kind, w.state) OFFSET 0", "AND w.state = 'open' OFFSET 0"))
def test_T8_a_sweep_finds_what_to_overtake_without_reading_what_waits(bridge: Bridge) -> None:
    """However many turns are finished or wait alone, only what is active is read, and its waiting turn by index."""
    match, claim = composing(bridge)
    bridge.write(match, "deux")
    bridge.group()
    insert = (
        "INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, due_at, ended_at, reason)"
        " SELECT 'reply', gen_random_uuid(), %s, s, bridge.now(), CASE s WHEN 'open' THEN bridge.now() END,"
        " CASE s WHEN 'cancelled' THEN bridge.now() END, 'gone'"
        " FROM generate_series(1, 5000), unnest('{cancelled,open}'::text[]) s"
    )
    bridge.rows(insert, CAMILLE)
    for named in (None, [match]):
        session = bridge.session(ADMIN)
        assert [row[0] for row in bridge.rows(OVERTAKE, named, connection=session)] == [claim.turn]
        read = bridge.value(
            "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables"
            " WHERE schemaname = 'bridge' AND relname = 'turns'",
            connection=session,
        )
        session.rollback()
        assert read < 100
