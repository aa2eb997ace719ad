from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pytest

from bridge_service.errors import DatabaseUnavailable
from bridge_service.machine import steps
from schedulers.deliverer import Deliverer
from tests.support.recorder import Recorder
from tests.support.roles import OWNER, SERVICE
from tests.support.rules import CAMILLE, LEA, Bridge, without

if TYPE_CHECKING:
    from bridge_service.machine.answers import Deliveries
    from bridge_service.machine.steps import Store

TROUBLE: Final = """
    CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.content = 'trouble' THEN
            {}
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER trouble BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION trouble();
"""
"""A trigger of the app's that makes one reply's INSERT different from the others'."""


def _typing(bridge: Bridge, many: int) -> tuple[list[str], list[int]]:
    """Give conversations whose replies are due, in the order in which a set takes them, and their turns.

    The bridge's clock stands from then on: no set ends because the machine is slow.
    """
    matches = sorted(bridge.match() for _ in range(many))
    turns = [_reply(bridge, match) for match in matches]
    bridge.stop_clock()
    return matches, turns


def _reply(bridge: Bridge, match: str, draft: str = "coucou") -> int:
    bridge.write(match)
    return bridge.typing(match, draft)


def _set(store: Store, *alone: int) -> Deliveries:
    return store.deliver_due(16, alone)


def _names(done: Deliveries) -> dict[int, str]:
    return {turn: outcome.name for turn, outcome in done.outcomes.items()}


def _replies(bridge: Bridge, match: str) -> list[str]:
    return [content for sender, content in bridge.messages(match) if sender == CAMILLE]


def _hold(bridge: Bridge, match: str) -> None:
    """Let a transaction of the app's hold a match's row, which a reply's INSERT has to see."""
    bridge.rows("SELECT FROM matches WHERE id = %s FOR UPDATE", match, connection=bridge.session())


def _impatient(bridge: Bridge) -> None:
    """Give the steps the patience that they have in production."""
    bridge.impatient()
    bridge.rows("ALTER FUNCTION bridge.deliver_due SET lock_timeout = '20ms'")


WAITS_FOR_TURNS: Final = (
    "deliver_due",
    "(t.state = 'typing') IS TRUE FOR NO KEY UPDATE SKIP LOCKED;",
    "(t.state = 'typing') IS TRUE FOR NO KEY UPDATE;",
)

# Rule B1: sets


@without(("due_deliveries", "AND t.due_at <= (SELECT bridge.now())", ""))
def test_B1_a_set_delivers_what_is_due_and_says_when_the_next_is(bridge: Bridge) -> None:
    """The replies whose time has come are there after one call; another one is no part of it."""
    matches, turns = _typing(bridge, 3)
    later = bridge.match()
    bridge.write(later)
    bridge.finish(bridge.claimed(later), pause=60)

    done = _set(bridge.store)
    assert _names(done) == dict.fromkeys(turns, "answered")
    assert done.due_in == 60
    assert [_replies(bridge, match) for match in [*matches, later]] == [["coucou"]] * 3 + [[]]


@without(("deliver_due", "v_locked := true;", ""))
def test_B1_a_set_ends_at_the_first_lock_that_it_does_not_get(bridge: Bridge) -> None:
    """What was delivered before is committed, so an INSERT into another conversation waits for one lock at most."""
    matches, (first, held, *last) = _typing(bridge, 4)
    _impatient(bridge)
    _hold(bridge, matches[1])
    before = bridge.turn(held)

    assert _names(_set(bridge.store)) == {first: "answered", held: "alone"}
    assert bridge.turn(held) == before
    done = _set(bridge.store, held)
    assert _names(done) == dict.fromkeys(last, "answered")
    assert done.due_in is None  # the caller plans what it delivers alone


@without(("deliver_due", "bridge.now() > v_until", "false"))
def test_B1_a_set_ends_after_50_ms(bridge: Bridge) -> None:
    """A set of replies that each take 40 ms is no longer than two of them."""
    turns = [_reply(bridge, bridge.match()) for _ in range(4)]
    bridge.rows(TROUBLE.format("").replace("IF NEW", "PERFORM pg_sleep(0.04); IF NEW"), connection=bridge.people)
    assert 1 <= len(_set(bridge.store).outcomes) <= 2
    assert {bridge.turn(turn).state for turn in turns} == {"answered", "typing"}


@without(("deliver_due", "p_patience => current_setting('lock_timeout')", "p_patience => '1h'"))
def test_B1_the_app_s_tables_are_waited_for_no_longer_than_the_set_may(bridge: Bridge) -> None:
    """The app's INSERT has a lock timeout of 20 ms in a set, and of 300 ms in a delivery of its own."""
    _impatient(bridge)
    bridge.rows(f"CREATE TABLE seen (patience text); GRANT INSERT ON seen TO {OWNER}", connection=bridge.people)
    seen = "INSERT INTO public.seen VALUES (current_setting('lock_timeout'));"
    bridge.rows(TROUBLE.format(seen), connection=bridge.people)
    bridge.deliver(_reply(bridge, bridge.match(), "trouble"))
    _reply(bridge, bridge.match(), "trouble")
    _set(bridge.store)
    assert bridge.rows("SELECT patience FROM seen") == [("300ms",), ("20ms",)]


@without(("deliver_due", "IF v_answer ->> 'outcome' = 'later' AND NOT v_answer ? 'error' THEN", "IF false THEN"))
def test_B1_a_lock_of_20_ms_costs_no_second(bridge: Bridge) -> None:
    """A reply that a set could not take is due at once: the attempt of its own waits longer."""
    [match], [turn] = _typing(bridge, 1)
    _impatient(bridge)
    app = bridge.session()
    bridge.rows("SELECT FROM matches WHERE id = %s FOR UPDATE", match, connection=app)
    assert _names(_set(bridge.store)) == {turn: "alone"}
    app.rollback()
    assert bridge.deliver(turn).name == "answered"
    assert bridge.store.due_deliveries(16, []) == []


@without(("deliver_due", "WHEN OTHERS OR assert_failure THEN", "WHEN division_by_zero THEN"))
def test_B1_a_reply_whose_step_raises_spoils_no_other(bridge: Bridge) -> None:
    """If the adapter cannot read one conversation, the others of the set are delivered."""
    matches, turns = _typing(bridge, 3)
    bridge.rows(
        f"""
        CREATE OR REPLACE FUNCTION bridge.conversation(p_match uuid)
        RETURNS TABLE (bot_id uuid, bot_name text, person_id uuid, person_name text, matched_at timestamptz)
        LANGUAGE plpgsql AS $$ BEGIN
            IF p_match = '{matches[1]}' THEN RAISE 'no such thing' USING ERRCODE = 'P0001'; END IF;
            RETURN QUERY SELECT '{CAMILLE}'::uuid, ''::text, '{LEA}'::uuid, ''::text, bridge.now();
        END $$
        """
    )
    assert list(_names(_set(bridge.store)).values()) == ["answered", "alone", "answered"]
    assert [_replies(bridge, match) for match in matches] == [["coucou"], [], ["coucou"]]
    assert bridge.turn(turns[1]).state == "typing"


@without(("deliver_turn", "WHEN OTHERS OR assert_failure THEN", "WHEN division_by_zero THEN"))
def test_B1_a_reply_that_the_table_refuses_spoils_no_other(bridge: Bridge) -> None:
    """Its INSERT raises: that is an attempt of its turn, and the others of the set are delivered."""
    matches = sorted(bridge.match() for _ in range(3))
    bridge.rows(TROUBLE.format("RAISE 'refused' USING ERRCODE = '55000';"), connection=bridge.people)
    turns = [_reply(bridge, match, draft) for match, draft in zip(matches, ("un", "trouble", "trois"), strict=True)]
    bridge.stop_clock()
    assert list(_names(_set(bridge.store)).values()) == ["answered", "failed", "answered"]
    assert bridge.turn(turns[1]).attempts == 1
    assert [_replies(bridge, match) for match in matches] == [["un"], [], ["trois"]]


@pytest.mark.parametrize("bridge", [()], indirect=True)
def test_B1_a_set_that_raised_as_a_whole_is_delivered_turn_by_turn(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reply takes longer than the set's statement timeout: each is delivered alone, and the next set is whole."""
    monkeypatch.setattr(steps, "SET_MILLISECONDS", 200)
    bridge.rows(TROUBLE.format("PERFORM pg_sleep(0.5);"), connection=bridge.people)
    matches = sorted(bridge.match() for _ in range(3))
    turns = [_reply(bridge, match, draft) for match, draft in zip(matches, ("un", "trouble", "trois"), strict=True)]
    bridge.stop_clock()
    told = Recorder()
    deliverer = Deliverer(bridge.store, on_pushable=lambda: None, emit=told)

    # The set holds the first reply, which took no time, until it meets the second; or 50 ms have passed before.
    while not deliverer.alone.turns():
        deliverer._deliver()
    assert turns[1] in deliverer.alone.turns()
    another = _reply(bridge, bridge.match())
    assert _names(deliverer._deliver()) == {another: "answered"}
    while deliverer.alone.turns():
        deliverer.alone.turn()
    assert [_replies(bridge, match) for match in matches] == [["un"], ["trouble"], ["trois"]]
    assert told.names() == ["reply_delivered"] * 4


@without(("push_due", "IF p_deliveries THEN", "IF false THEN"))
def test_B1_a_scheduler_of_the_version_before_pushes_deliveries(bridge: Bridge) -> None:
    """It plans for them and pushes them as it did; what it pushed is left to a worker, for a while."""
    _, [turn] = _typing(bridge, 1)
    assert bridge.step("SELECT flush_at FROM bridge.next_due(2000)") == [(bridge.turn(turn).due_at,)]
    assert bridge.store.next_due().flush_at is None
    assert bridge.push() == []
    assert bridge.step("SELECT turn_id, step FROM bridge.push_due(2000, 500, 10, 20)") == [(turn, "deliver")]
    assert _set(bridge.store).outcomes == {}
    bridge.advance(10)
    assert _names(_set(bridge.store)) == {turn: "answered"}


@without(("unreadable", "(retry_at > bridge.now()) IS NOT TRUE", "true"))
def test_B1_a_delivery_that_cannot_be_read_counts_once_until_it_is_tried_again(bridge: Bridge) -> None:
    """Two schedulers that meet the same error, or one that repeats a call, count one attempt."""
    _, [turn] = _typing(bridge, 1)
    outcomes = [bridge.store.unreadable(turn, "deliver", "no").name for _ in range(2)]
    assert outcomes == ["failed", "nothing"]
    assert bridge.turn(turn).attempts == 1


# Rule B2: the order of locks


@without(WAITS_FOR_TURNS)
def test_B2_two_schedulers_deliver_side_by_side(bridge: Bridge) -> None:
    """A second set takes what the first one does not hold, waits for nothing, and says nothing twice."""
    matches, turns = _typing(bridge, 4)
    first = bridge.session(SERVICE)
    answer = bridge.value("SELECT bridge.deliver_due(2, '{}')", connection=first)
    assert [turn for turn, _ in answer["turns"]] == turns[:2]

    second = bridge.run(_set)
    assert _names(second.result_at_once()) == dict.fromkeys(turns[2:], "answered")
    first.commit()
    assert _set(bridge.store).outcomes == {}
    assert [_replies(bridge, match) for match in matches] == [["coucou"]] * 4


@pytest.mark.parametrize("bridge", [()], indirect=True)
def test_B2_sets_at_the_same_time_say_each_reply_once(bridge: Bridge) -> None:
    """Three schedulers, 40 conversations, messages that come meanwhile: each reply once, none that is stale."""
    matches, _ = _typing(bridge, 40)

    def work(store: Store) -> int:
        count = 0
        while store.due_deliveries(16, []):
            count += list(_names(_set(store)).values()).count("answered")
        return count

    stores = [bridge.another_store() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        counts = [pool.submit(work, store) for store in stores]
        for match in matches[::4]:
            bridge.write(match, "encore")
        answered = sum(count.result() for count in counts)
    replies = [_replies(bridge, match) for match in matches]
    assert max(map(len, replies)) == 1
    assert sum(map(len, replies)) == answered
    for match in matches[::4]:  # the message came before the look, and there is no reply, or after it
        if not _replies(bridge, match):
            assert bridge.turns(match)[0].reason == "superseded"


_GATE: Final = f"""
    CREATE TABLE gate (open boolean); INSERT INTO gate VALUES (true); GRANT SELECT, UPDATE ON gate TO {OWNER};
"""  # noqa: S608 - the role is ours


def _gated_set(bridge: Bridge) -> tuple[str, int, str, int]:
    """Give a conversation whose reply's INSERT waits for the gate, and one that is taken after it, with an opener."""
    bridge.rows(_GATE + TROUBLE.format("PERFORM FROM gate FOR UPDATE;"), connection=bridge.people)
    new = bridge.match(opener=True)
    old = next(match for match in iter(bridge.match, None) if match < new)
    opener = bridge.typing_opener(new)
    reply = _reply(bridge, old, "trouble")
    bridge.stop_clock()
    return old, reply, new, opener


@without(WAITS_FOR_TURNS)
def test_B2_a_set_and_a_grouping_do_not_deadlock(bridge: Bridge) -> None:
    """The set has woken a waiting turn; the grouping holds an opener that the set wants, and wants that turn."""
    old, reply, new, opener = _gated_set(bridge)
    gate = bridge.session()
    bridge.rows("SELECT FROM gate FOR UPDATE", connection=gate)
    with bridge.policy(max_merges=0):
        bridge.write(old, "encore")
        [waiting] = {event.turn_id for event in bridge.group()}
        bridge.write(old, "toujours")
        bridge.write(new, "salut")
        delivering = bridge.run(_set)
        delivering.until_waiting()
        grouping = bridge.run(lambda store: store.group())
        grouping.until_waiting()
        gate.commit()
        assert _names(delivering.result()) == {reply: "answered"}
    assert waiting in {event.turn_id for event in grouping.result()}
    assert bridge.turn(opener).reason == "message"
    assert _replies(bridge, new) == []


@without(("deliver_due", "IF bridge.speaks_first(v_kind) THEN", "IF false THEN"))
def test_F1_a_set_takes_the_match_s_event_before_the_opener(bridge: Bridge) -> None:
    """A set and a delivery of its own that wait for the same message under way do not deadlock."""
    match = bridge.match(opener=True)
    opener = bridge.typing_opener(match)
    app = bridge.session()
    bridge.write(match, connection=app)
    alone = bridge.run(lambda store: store.deliver(opener))
    alone.until_waiting()
    together = bridge.run(_set)
    together.until_waiting()
    app.commit()

    assert alone.result().name == "cancelled"
    assert _names(together.result()) in ({}, {opener: "nothing"})
    assert _replies(bridge, match) == []


@without(("deliver_due", "v_answer := c_alone; v_locked := true;", "v_answer := bridge.deliver_turn(v_turn);"))
def test_F1_a_message_under_way_leaves_the_opener_of_a_set_undelivered(bridge: Bridge) -> None:
    """The set does not wait for it; once it has committed, the opener is cancelled, by a set as well."""
    match = bridge.match(opener=True)
    opener = bridge.typing_opener(match)
    _impatient(bridge)
    app = bridge.session()
    bridge.write(match, connection=app)
    assert _names(_set(bridge.store)) == {opener: "alone"}
    app.commit()
    assert _names(_set(bridge.store)) == {opener: "cancelled"}
    assert _replies(bridge, match) == []


# Rule D3: a set in doubt


@pytest.mark.parametrize("bridge", [()], indirect=True)
def test_D3_a_set_that_dies_half_way_has_said_nothing(bridge: Bridge) -> None:
    """Its backend is killed after the first of two replies: neither is there, and the next set says each once."""
    matches = sorted(bridge.match() for _ in range(2))
    bridge.rows(_GATE + TROUBLE.format("PERFORM FROM gate FOR UPDATE;"), connection=bridge.people)
    turns = [_reply(bridge, match, draft) for match, draft in zip(matches, ("un", "trouble"), strict=True)]
    bridge.stop_clock()
    gate = bridge.session()
    bridge.rows("SELECT FROM gate FOR UPDATE", connection=gate)
    dying = bridge.run(_set)
    dying.until_waiting()
    bridge.rows("SELECT pg_terminate_backend(%s)", dying.pid)
    with pytest.raises(DatabaseUnavailable):
        dying.result()
    assert [_replies(bridge, match) for match in matches] == [[], []]

    gate.commit()
    assert _names(_set(bridge.store)) == dict.fromkeys(turns, "answered")
    assert [_replies(bridge, match) for match in matches] == [["un"], ["trouble"]]
