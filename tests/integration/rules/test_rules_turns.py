from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import psycopg2
import pytest

from bridge_service.errors import DatabaseBusy, DatabaseRefused
from bridge_service.turns import Kind
from tests.support.policy import MAX_ATTEMPTS, MAX_TAKEOVERS
from tests.support.roles import ADMIN, SERVICE
from tests.support.rules import CAMILLE, GROUPING_DELAY, JOINS, LEA, NEVER_JOINS, without
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from psycopg2.extensions import connection as AppConnection  # noqa: N812 - as in waiting.py

    from bridge_service.machine.answers import Outcome
    from bridge_service.machine.steps import Store
    from tests.support.rules import Bridge, Claim, Running

# The steps as statements, for a transaction that stays open.
GROUP: Final = "SELECT * FROM bridge.group_events(0)"
CLAIM: Final = "SELECT bridge.claim(%s, %s, 15, 50)"
DELIVER: Final = "SELECT bridge.deliver_turn(%s)"
OLD_PUSH: Final = "SELECT turn_id, step FROM bridge.push_due(2000, 1000, 10, 20, 20)"
"""As a scheduler of version 0.1.0 calls it."""
PUSH: Final = "SELECT turn_id FROM bridge.push_due(%s, 1000, 10, %s)"

UPSERT: Final = (
    "ON CONFLICT (match_id) WHERE bridge.is_waiting(kind, state) DO UPDATE SET opened_at = waiting.opened_at"
)


def claimed_by(token: UUID, turn: int) -> Callable[[Store], Outcome]:
    """Give a claim for `Bridge.run`."""
    return lambda store: store.claim(turn, token)


def texts(claim: Claim | Outcome) -> list[str]:
    """Return what a claimed turn is to answer."""
    outcome = claim if not isinstance(claim, tuple) else claim.outcome
    assert outcome.task is not None, outcome
    return [line.content for line in outcome.task.messages]


def stopped(running: Running[Any]) -> None:
    """Return once a call waits for a lock, or has ended."""

    def check() -> None:
        if not running.done:
            running.until_waiting()

    eventually(check)


def hold_event(bridge: Bridge, message: str) -> AppConnection:
    """Hold a message's event as a scheduler does that has taken it and not grouped it yet."""
    scheduler = bridge.session(ADMIN)
    bridge.rows(
        "SELECT FROM bridge.events WHERE message_id = %s FOR NO KEY UPDATE", message, connection=scheduler
    )  # fmt: skip
    return scheduler


def pause(bridge: Bridge, function: str, before: str) -> AppConnection:
    """Make a function wait in front of a text of its body, until what is returned is committed."""
    holder = bridge.session(ADMIN)
    bridge.rows("SELECT pg_advisory_xact_lock(1)", connection=holder)
    definition = bridge.value(
        "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'bridge'::regnamespace AND proname = %s",
        function,
    )
    assert definition.count(before) == 1
    bridge.rows(definition.replace(before, f"PERFORM pg_catalog.pg_advisory_xact_lock(1); {before}"))
    return holder


def event_ids(bridge: Bridge, turn: int) -> list[int]:
    """Return the ids of the events that stand in a turn."""
    return [event for (event,) in bridge.rows("SELECT id FROM bridge.events WHERE turn_id = %s ORDER BY id", turn)]


def is_due(bridge: Bridge, turn: int) -> bool:
    """Whether a turn is due now."""
    return bool(bridge.value("SELECT due_at <= bridge.now() FROM bridge.turns WHERE id = %s", turn))


def active_and_waiting(bridge: Bridge) -> tuple[str, Claim, int]:
    """Give a match with a turn that composes and a newer one that was pushed, with their messages `un` and `deux`."""
    match = bridge.match()
    bridge.write(match, "un")
    active = bridge.claimed(match)
    bridge.write(match, "deux")
    bridge.group()
    bridge.advance(GROUPING_DELAY + 1)
    bridge.store.renew({active.turn: active.token})
    [push] = bridge.push()
    assert bridge.turn(push.turn_id).state == "queued"
    return match, active, push.turn_id


# T1: at most one waiting and one active turn a conversation, by index.


@without(
    ("sql", "DROP INDEX bridge.turns_one_waiting"),
    ("group_events", JOINS, ""),
    ("open_waiting", UPSERT, ""),
)
def test_T1_grouping_and_a_delivery_open_one_waiting_turn(bridge: Bridge) -> None:
    """A scheduler and a delivery that both find a newer message at the same time make one waiting turn of it."""
    match = bridge.match()
    bridge.write(match, "un")
    active = bridge.typing(match)
    bridge.write(match, "deux")
    scheduler = bridge.session(SERVICE)
    bridge.rows(GROUP, connection=scheduler)

    delivery = bridge.run(lambda store: store.deliver(active))
    stopped(delivery)
    scheduler.commit()

    assert delivery.result().name == "superseded"
    [waiting] = [turn for turn in bridge.turns(match) if turn.state == "open"]
    assert len(bridge.covered(waiting.id)) == 2


@without(("sql", "DROP INDEX bridge.turns_one_active"))
def test_T1_an_opener_and_a_reply_claimed_at_the_same_instant(bridge: Bridge) -> None:
    """Of two turns of a conversation that are claimed at the same instant one becomes active, the other is busy."""
    match = bridge.match()
    message = bridge.write(match)
    reply = bridge.pushed(match)
    # Grouping would have cancelled the opener: it stands here for any turn that is claimed meanwhile.
    opener = bridge.value(
        "INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, due_at)"
        " SELECT 'initiation', match_id, bot_id, state, opened_at, due_at FROM bridge.turns WHERE id = %s RETURNING id",
        reply,
    )
    worker = bridge.session(SERVICE)
    [[answer]] = bridge.rows(CLAIM, reply, str(uuid4()), connection=worker)
    assert answer["outcome"] == "claimed"
    bridge.rows("DELETE FROM messages WHERE id = %s", message)

    other = bridge.run(claimed_by(uuid4(), opener))
    stopped(other)
    worker.commit()

    assert other.result().name == "busy"
    assert (bridge.turn(reply).state, bridge.turn(opener).state) == ("composing", "queued")


@without(
    ("sql", "DROP INDEX bridge.turns_one_active"),
    ("claim", "bridge.waits_for_active(t.id, t.match_id)", "false"),
)
def test_T1_a_conversation_composes_one_reply_at_a_time(bridge: Bridge) -> None:
    """The waiting turn cannot be claimed while another one composes or types."""
    _, active, waiting = active_and_waiting(bridge)
    assert bridge.claim(waiting).outcome.name == "busy"
    with bridge.policy(max_merges=0):
        assert bridge.finish(active).name == "typing"
    assert bridge.claim(waiting).outcome.name == "busy"
    assert bridge.turn(waiting).state == "queued"


# T2: grouping is one statement a step, and loses nothing to a claim in flight.


@without(NEVER_JOINS)
def test_T2_an_event_that_meets_a_claim_opens_a_new_turn(bridge: Bridge) -> None:
    """An event that is grouped while the waiting turn is being claimed finds a new turn: the claim has read already."""
    match = bridge.match()
    bridge.write(match, "un")
    turn = bridge.pushed(match)
    holder = pause(bridge, "claim", "UPDATE bridge.turns\n        SET state = 'composing'")
    claim = bridge.run(claimed_by(uuid4(), turn))
    claim.until_waiting()
    bridge.write(match, "deux")

    grouped = bridge.run(lambda store: store.group())
    stopped(grouped)
    holder.commit()

    assert texts(claim.result()) == ["un"]
    [event] = grouped.result()
    assert bridge.turn(turn).covers == event_ids(bridge, turn)
    assert bridge.turn(event.turn_id).state == "open"


@without(NEVER_JOINS)
def test_T2_an_event_that_meets_a_claim_that_fails_joins(bridge: Bridge) -> None:
    """An event that waited for a claim which was rolled back joins the turn, and the next claim waits for it."""
    match = bridge.match()
    bridge.write(match, "un")
    turn = bridge.pushed(match)
    scheduler = bridge.session(SERVICE)
    bridge.write(match, "deux")
    worker = bridge.session(ADMIN)
    # Held like this the event is not taken along.
    bridge.rows("SELECT FROM bridge.turns WHERE id = %s FOR NO KEY UPDATE", turn, connection=worker)
    grouped = bridge.execute(scheduler, GROUP)
    stopped(grouped)
    worker.rollback()
    grouped.result()

    claim = bridge.run(claimed_by(uuid4(), turn))
    stopped(claim)
    scheduler.commit()

    assert texts(claim.result()) == ["un", "deux"]


@without(("group_events", "ORDER BY e.id FOR NO KEY UPDATE SKIP LOCKED", "ORDER BY e.id FOR NO KEY UPDATE"))
def test_T2_two_schedulers_group_side_by_side(bridge: Bridge) -> None:
    """A scheduler groups what another one does not hold, without waiting for it, and nothing is grouped twice."""
    first, second = bridge.match(), bridge.match()
    bridge.write(first)
    scheduler = bridge.session(SERVICE)
    assert len(bridge.rows(GROUP, connection=scheduler)) == 1
    bridge.write(second)

    [event] = bridge.run(lambda store: store.group()).result(timeout=3)
    assert event.match_id == second
    scheduler.commit()
    assert bridge.group() == []
    assert [len(bridge.turns(match)) for match in (first, second)] == [1, 1]


@without(
    ("group_events", "e.id = ANY (v_seen) AND e.turn_id IS NULL", "e.id = ANY (v_seen)"),
    ("group_events", "(e.kind = 'message' AND e.turn_id IS NULL) IS TRUE", "e.kind = 'message'"),
    ("group_events", "(e.kind = 'message') IS TRUE AND e.turn_id IS NULL;", "e.kind = 'message';"),
)
def test_T2_an_answered_event_is_not_grouped_again(bridge: Bridge) -> None:
    """A scheduler that saw an event ungrouped leaves it alone when it has found its turn meanwhile."""
    match = bridge.match()
    bridge.write(match, "un")
    turn = bridge.pushed(match)
    bridge.write(match, "deux")
    holder = pause(bridge, "group_events", "SELECT array_agg(l.id) INTO v_taken")
    late = bridge.run(lambda store: store.group())
    late.until_waiting()

    claim = bridge.claim(turn)
    assert texts(claim) == ["un", "deux"]
    assert bridge.finish(claim, pause=0).name == "answered"
    holder.commit()

    assert late.result() == []
    assert [turn.state for turn in bridge.turns(match)] == ["answered"]


@without(("group_events", "FOR NO KEY UPDATE SKIP LOCKED", "FOR UPDATE SKIP LOCKED"))
def test_T2_a_match_that_a_message_holds_is_not_skipped(bridge: Bridge) -> None:
    """A match's event is grouped although a message that is not committed yet holds it (F1)."""
    match = bridge.match(opener=True)
    app = bridge.session()
    bridge.write(match, connection=app)

    [event] = bridge.group()
    assert (event.kind, event.match_id) == ("match", match)
    app.rollback()
    assert bridge.opener(match).state == "open"


@without(("group_events", "IF cardinality(v_taken) IS DISTINCT FROM cardinality(v_seen) THEN", "IF false THEN"))
def test_T2_a_conversation_is_grouped_whole_or_not_at_all(bridge: Bridge) -> None:
    """A later event is never grouped past an earlier one that another scheduler holds; other conversations are."""
    match, other = bridge.match(), bridge.match()
    first = bridge.write(match, "un")
    scheduler = hold_event(bridge, first)
    bridge.write(match, "deux")
    bridge.write(other)

    assert [event.match_id for event in bridge.group()] == [other]
    scheduler.rollback()
    assert [(event.match_id, event.place) for event in bridge.group()] == [(match, 1), (match, 2)]


@without(("take_along", "IF cardinality(v_locked) = cardinality(v_seen) THEN", "IF true THEN"))
def test_T2_a_claim_takes_a_conversation_along_whole_or_not_at_all(bridge: Bridge) -> None:
    """A claim never takes a later event along past an earlier one that a scheduler holds."""
    match = bridge.match()
    bridge.write(match, "un")
    turn = bridge.pushed(match)
    second = bridge.write(match, "deux")
    bridge.write(match, "trois")
    hold_event(bridge, second)

    assert texts(bridge.claim(turn)) == ["un"]


@without(
    (
        "group_events",
        "CROSS JOIN LATERAL bridge.ungrouped_events(m.match_id) e",
        "JOIN LATERAL bridge.ungrouped_events(m.match_id) e ON e.id > p_after",
    )
)
def test_T2_a_bound_cuts_no_conversation(bridge: Bridge) -> None:
    """A look that is bounded below takes the earlier events of a conversation too, whose later ones it finds."""
    match = bridge.match()
    bridge.write(match, "un")
    bound = bridge.value("SELECT max(id) FROM bridge.events")
    assert bridge.group(after=bound) == []
    bridge.write(match, "deux")
    assert [event.place for event in bridge.group(after=bound)] == [1, 2]


@without(("group_events", "e.id LIMIT 5000) s", "e.id) s"))
def test_T2_a_backlog_is_grouped_in_batches(bridge: Bridge) -> None:
    """No call groups more than it has time for, and of a long conversation the first events go first."""
    match = bridge.match()
    bridge.rows(
        "INSERT INTO bridge.events (kind, match_id, message_id, bot_id, sender_id, captured_at)"
        " SELECT 'message', %s, gen_random_uuid(), %s, %s, bridge.now() FROM generate_series(1, 5001)",
        *(match, CAMILLE, LEA),
    )
    first, last = bridge.group(), bridge.group()
    assert [event.place for event in first + last] == list(range(1, 5002))
    assert len(last) == 1
    assert first[0].turn_id == last[0].turn_id


@without(("group_events", "ORDER BY min(w.id) OVER (PARTITION BY w.match_id), w.id", "ORDER BY w.id"))
def test_T2_a_backlog_is_cut_between_conversations(bridge: Bridge) -> None:
    """Of many conversations that wrote in turn, a batch takes some whole: a part would be answered alone."""
    bridge.rows(
        "INSERT INTO bridge.events (kind, match_id, message_id, bot_id, sender_id, captured_at)"
        " SELECT 'message', m, gen_random_uuid(), %s, %s, bridge.now()"
        " FROM generate_series(1, 3),"
        " (SELECT array_agg(gen_random_uuid()) AS all FROM generate_series(1, 2000)) x, unnest(x.all) m",
        *(CAMILLE, LEA),
    )
    taken = Counter(event.match_id for event in bridge.group())
    assert sum(taken.values()) == 5000
    assert Counter(taken.values()) == {3: 1666, 2: 1}


@without(("set_aside", "SET error = left(p_error, 500)", "SET error = NULL"))
def test_T2_what_spoils_a_batch_is_set_aside_alone(bridge: Bridge) -> None:
    """What cannot be grouped is set aside with its error; other conversations, and later messages, are grouped."""
    good, bad = bridge.match(), bridge.match()
    bridge.write(good)
    spoiled = bridge.write(bad)
    bridge.rows("UPDATE bridge.events SET captured_at = '294276-12-31 23:59:59Z' WHERE message_id = %s", spoiled)
    with pytest.raises(DatabaseRefused):
        bridge.group()

    assert bridge.store.ungrouped_matches(10) == [good, bad]
    assert [event.match_id for event in bridge.group(only=good)] == [good]
    assert bridge.store.set_aside(bad, "timestamp out of range") == 1

    later = bridge.write(bad)
    [event] = bridge.group()
    assert bridge.covered(event.turn_id) == [later]
    assert bridge.store.ungrouped_matches(10) == []
    assert bridge.value("SELECT error FROM bridge.events WHERE message_id = %s", spoiled) == "timestamp out of range"


# T3: the claim locks first and reads then.


@without(
    (
        "claim",
        "SELECT * INTO t FROM bridge.turns WHERE id = p_turn FOR NO KEY UPDATE;",
        """SELECT array_agg(e.id ORDER BY e.id), array_agg(e.message_id ORDER BY e.id) INTO v_events, v_messages
        FROM bridge.events e WHERE e.turn_id = p_turn;
        SELECT * INTO t FROM bridge.turns WHERE id = p_turn FOR NO KEY UPDATE;""",
    ),
    (
        "claim",
        """SELECT coalesce(array_agg(e.id ORDER BY e.kind = 'message', e.id), '{}'),
           coalesce(array_agg(e.message_id ORDER BY e.id) FILTER (WHERE e.kind = 'message'), '{}')
        INTO v_events, v_messages
        FROM bridge.events e WHERE e.turn_id = t.id;""",
        "",
    ),
)
def test_T3_a_claim_reads_what_joined_while_it_waited(bridge: Bridge) -> None:
    """An event that joins the turn while the claim waits for its lock is in the task."""
    match = bridge.match()
    bridge.write(match, "un")
    turn = bridge.pushed(match)
    bridge.write(match, "deux")
    scheduler = bridge.session(SERVICE)
    bridge.rows(GROUP, connection=scheduler)

    claim = bridge.run(claimed_by(uuid4(), turn))
    claim.until_waiting()
    scheduler.commit()

    assert texts(claim.result()) == ["un", "deux"]


@without(("claim", "PERFORM bridge.assert_read_committed();", ""))
def test_T3_a_claim_that_could_not_look_again_is_refused(bridge: Bridge) -> None:
    """Under REPEATABLE READ, where a later statement sees the past, a claim raises and changes nothing."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match)
    worker = bridge.session(SERVICE, isolation="REPEATABLE READ")
    with pytest.raises(psycopg2.errors.FeatureNotSupported, match="READ COMMITTED"):
        bridge.rows(CLAIM, turn, str(uuid4()), connection=worker)
    worker.rollback()
    assert bridge.turn(turn).state == "queued"


@without(("deliver_turn", "IF v_events <> t.covers THEN", "IF false THEN"))
def test_T3_a_draft_that_answers_something_else_is_thrown_away(bridge: Bridge) -> None:
    """A delivery whose turn holds other events than the draft was written for has it composed anew."""
    match = bridge.match()
    bridge.write(match, "un")
    turn = bridge.typing(match)
    second = bridge.write(match, "deux")
    bridge.rows("UPDATE bridge.events SET turn_id = %s WHERE message_id = %s", turn, second)

    assert bridge.deliver(turn).name == "nothing"
    assert (bridge.turn(turn).state, bridge.turn(turn).draft) == ("composing", None)
    assert is_due(bridge, turn)
    claim = bridge.claim(turn)
    assert texts(claim) == ["un", "deux"]
    assert bridge.finish(claim, pause=0).name == "answered"


# T4: the claim takes ungrouped events along, never past a waiting turn.


@without(("claim", "PERFORM bridge.take_along(t.id, t.match_id);", "NULL;"))
def test_T4_a_claim_takes_along_what_nobody_has_grouped(bridge: Bridge) -> None:
    """A message that no scheduler has seen is in the task of the turn that is claimed after its commit."""
    match = bridge.match()
    bridge.write(match, "un")
    turn = bridge.pushed(match)
    bridge.write(match, "deux")

    assert texts(bridge.claim(turn)) == ["un", "deux"]
    assert bridge.group() == []


@without(
    (
        "take_along",
        """AND NOT EXISTS ( SELECT FROM bridge.turns w
        WHERE w.match_id = p_match AND bridge.is_waiting(w.kind, w.state) AND w.id <> p_turn)""",
        "",
    )
)
def test_T4_a_claim_takes_nothing_along_past_a_waiting_turn(bridge: Bridge) -> None:
    """A turn that is claimed again and may not be merged leaves the third message to the waiting turn."""
    match, active, waiting = active_and_waiting(bridge)
    bridge.store.release({active.turn: active.token})
    bridge.write(match, "trois")

    with bridge.policy(max_merges=0):
        assert texts(bridge.claim(active.turn).outcome) == ["un"]
    bridge.group()
    assert len(bridge.covered(waiting)) == 2


# T5: doubled, early and forged pushes find nothing to do; deliver_at never moves.


@without(("claim", "(t.state = 'composing' AND t.token IS NULL)", "t.state = 'composing'"))
def test_T5_a_doubled_push_finds_nothing_to_do(bridge: Bridge) -> None:
    """A second worker with the same push gets nothing, and the first one's draft is still taken."""
    match = bridge.match()
    bridge.write(match)
    first = bridge.claimed(match)

    assert bridge.claim(first.turn).outcome.name == "nothing"
    assert bridge.finish(first).name == "typing"


@without(("claim", "NOT (t.state = 'queued' OR", "NOT (t.state IN ('open', 'queued') OR"))
def test_T5_an_early_push_finds_nothing_to_do(bridge: Bridge) -> None:
    """A turn whose group is still open cannot be claimed."""
    match = bridge.match()
    bridge.write(match)
    [event] = bridge.group()

    assert bridge.claim(event.turn_id).outcome.name == "nothing"
    assert bridge.turn(event.turn_id).state == "open"


@without(("deliver_turn", "OR t.deliver_at > bridge.now()", ""))
def test_T5_nothing_is_delivered_before_its_time(bridge: Bridge) -> None:
    """A delivery that is pushed early finds nothing to do, and the one at its time delivers."""
    match = bridge.match()
    bridge.write(match)
    claim = bridge.claimed(match)
    bridge.finish(claim, pause=5)
    bridge.advance(4)
    assert bridge.deliver(claim.turn).name == "nothing"
    bridge.advance(2)
    assert bridge.deliver(claim.turn).name == "answered"


@without(("deliver_turn", "t.state <> 'typing' OR", ""))
def test_T5_a_doubled_delivery_inserts_nothing(bridge: Bridge) -> None:
    """A second delivery is told that the turn is answered, and the conversation has one reply."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    first, second = bridge.deliver(turn), bridge.deliver(turn)

    assert (first.name, second.name) == ("answered", "answered")
    assert second.details["message_id"] == first.details["message_id"]
    assert second.details["again"]
    assert [sender for sender, _ in bridge.messages(match)] == [LEA, CAMILLE]


@without(
    ("claim", "RETURN jsonb_build_object('outcome', 'nothing', 'state', 'unknown');", "t.state := 'queued';"),
    ("deliver_turn", "IF NOT FOUND OR t.state <> 'typing' OR", "IF"),
)
def test_T5_a_forged_push_finds_nothing_to_do(bridge: Bridge) -> None:
    """Ids that are unknown, and steps that are not the turn's next one, change nothing."""
    match = bridge.match()
    bridge.write(match)
    [event] = bridge.group()
    turn = event.turn_id

    def forge() -> None:
        before = bridge.turn(turn)
        assert bridge.deliver(turn).name == "nothing"
        assert bridge.turn(turn) == before

    forge()
    bridge.advance(GROUPING_DELAY + 1)
    bridge.push()
    forge()
    claim = bridge.claim(turn)
    forge()
    bridge.finish(claim)
    typing = bridge.turn(turn)
    assert bridge.claim(turn).outcome.name == "nothing"
    assert bridge.turn(turn) == typing
    assert bridge.claim(turn + 1000).outcome.name == "nothing"
    assert bridge.deliver(turn + 1000).name == "nothing"


@without(("deliver_turn", "t.deliver_at > bridge.now()", "t.due_at > bridge.now()"))
def test_T5_the_time_of_delivery_never_moves(bridge: Bridge) -> None:
    """A scheduler of the version before pushes a delivery again, which moves `due_at` only: it stays deliverable."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    deliver_at = bridge.turn(turn).deliver_at
    for _ in range(3):
        assert bridge.step(OLD_PUSH) == [(turn, "deliver")]
        assert bridge.turn(turn).deliver_at == deliver_at
        assert not is_due(bridge, turn)
        bridge.advance(21)
    bridge.step(OLD_PUSH)
    assert bridge.deliver(turn).name == "answered"


# T6: the token fences.


@without(("claim", "ELSIF t.state = 'composing' AND t.token = p_token THEN NULL;", ""))
def test_T6_the_same_token_gets_the_same_answer(bridge: Bridge) -> None:
    """A claim whose answer got lost is asked again and gets the same task, whatever was written meanwhile."""
    match = bridge.match()
    bridge.write(match, "un")
    first = bridge.claimed(match)
    bridge.write(match, "deux")

    again = bridge.store.claim(first.turn, first.token)
    assert again.task is not None
    assert first.outcome.task is not None
    assert again.task.messages == first.outcome.task.messages
    with bridge.policy(max_merges=0):
        assert bridge.finish(first).name == "typing"


@without(("finish", "IF NOT FOUND OR t.token IS DISTINCT FROM p_token THEN", "IF NOT FOUND THEN"))
def test_T6_a_worker_whose_lease_ran_out_cannot_finish(bridge: Bridge) -> None:
    """Once its turn was given away, a worker's draft is refused, and the new worker's is taken."""
    match = bridge.match()
    bridge.write(match)
    frozen = bridge.claimed(match)
    bridge.advance(16)
    [push] = bridge.push()
    assert (push.turn_id, push.recovered) == (frozen.turn, True)
    assert bridge.finish(frozen, "trop tard").name == "fenced"

    heir = bridge.claim(frozen.turn)
    assert bridge.finish(frozen, "trop tard").name == "fenced"
    assert bridge.finish(heir, "à temps").name == "typing"
    assert bridge.turn(frozen.turn).draft == "à temps"


@without(("fail", "OR t.token IS DISTINCT FROM p_token", ""))
def test_T6_a_worker_whose_lease_ran_out_cannot_fail(bridge: Bridge) -> None:
    """An error that comes after the turn was given away is nobody's."""
    match = bridge.match()
    bridge.write(match)
    frozen = bridge.claimed(match)
    bridge.advance(16)
    bridge.push()
    heir = bridge.claim(frozen.turn)

    assert bridge.store.fail(frozen.turn, frozen.token, "late", retry=1, counts=True).name == "fenced"
    assert bridge.finish(heir).name == "typing"


@without(("renew", "SET due_at = bridge.now() + make_interval(secs => p_lease)", "SET due_at = t.due_at"))
def test_T6_a_renewed_lease_is_not_given_away(bridge: Bridge) -> None:
    """A worker that renews in time keeps its turn for as long as it composes."""
    match = bridge.match()
    bridge.write(match)
    claim = bridge.claimed(match)
    for _ in range(4):
        bridge.advance(5)
        assert bridge.store.renew({claim.turn: claim.token}) == []
        assert bridge.push() == []
    assert bridge.finish(claim).name == "typing"


@without(("renew", "ON l.turn = t.id AND l.token = t.token", "ON l.turn = t.id"))
def test_T6_a_lost_lease_cannot_be_renewed(bridge: Bridge) -> None:
    """A worker whose turn was given away is told so, and the heir's lease stays as it is."""
    match = bridge.match()
    bridge.write(match)
    frozen = bridge.claimed(match)
    bridge.advance(16)
    bridge.push()
    heir = bridge.claim(frozen.turn)
    due_at = bridge.turn(heir.turn).due_at
    bridge.advance(1)

    assert bridge.store.renew({frozen.turn: frozen.token}) == [frozen.turn]
    assert bridge.turn(heir.turn).due_at == due_at


@without(("renew", " SKIP LOCKED", ""))
def test_T6_a_turn_that_somebody_holds_costs_no_other_its_lease(bridge: Bridge) -> None:
    """A worker whose delivery is held up by the app goes on renewing what its other threads compose."""
    bridge.impatient()
    held, free = _two_claims(bridge)
    bridge.rows("SELECT FROM bridge.turns WHERE id = %s FOR NO KEY UPDATE", held.turn, connection=bridge.session(ADMIN))
    bridge.advance(10)

    assert bridge.store.renew({held.turn: held.token, free.turn: free.token}) == [held.turn]
    bridge.advance(10)
    bridge.push()
    assert bridge.finish(free).name == "typing"


@without(("release", " SKIP LOCKED", ""))
def test_T6_a_turn_that_somebody_holds_keeps_no_other_from_being_given_back(bridge: Bridge) -> None:
    """A worker that drains while the app holds one of its deliveries up gives the others back all the same."""
    bridge.impatient()
    held, free = _two_claims(bridge)
    bridge.rows("SELECT FROM bridge.turns WHERE id = %s FOR NO KEY UPDATE", held.turn, connection=bridge.session(ADMIN))

    assert bridge.store.release({held.turn: held.token, free.turn: free.token}) == 1
    assert is_due(bridge, free.turn)


def _two_claims(bridge: Bridge) -> tuple[Claim, Claim]:
    matches = bridge.match(), bridge.match()
    for match in matches:
        bridge.write(match)
    bridge.group()
    bridge.advance(GROUPING_DELAY + 1)
    first, second = bridge.push()
    return bridge.claim(first.turn_id), bridge.claim(second.turn_id)


@without(("release", "ON l.turn = t.id AND l.token = t.token", "ON l.turn = t.id"))
def test_T6_only_its_worker_gives_a_turn_back(bridge: Bridge) -> None:
    """A worker that drains gives back its own turns, which are due at once, and no other's."""
    match = bridge.match()
    bridge.write(match)
    claim = bridge.claimed(match)

    assert bridge.store.release({claim.turn: uuid4()}) == 0
    assert bridge.turn(claim.turn).token == str(claim.token)
    assert bridge.store.release({claim.turn: claim.token}) == 1
    assert is_due(bridge, claim.turn)
    assert bridge.claim(claim.turn).outcome.name == "claimed"


@without(
    (
        "push_due",
        "SET token = NULL, takeovers",
        "SET token = NULL, state = 'queued', takeovers",
    )
)
def test_T6_an_expired_turn_stays_active(bridge: Bridge) -> None:
    """A turn whose lease ran out stays `composing`, so that pushing it never collides with the waiting one."""
    _, active, waiting = active_and_waiting(bridge)
    bridge.advance(21)

    assert {push.turn_id for push in bridge.push()} == {active.turn, waiting}
    expired = bridge.turn(active.turn)
    assert (expired.state, expired.token) == ("composing", None)
    assert bridge.claim(waiting).outcome.name == "busy"
    with bridge.policy(max_merges=0):
        assert bridge.claim(active.turn).outcome.name == "claimed"


_STEPS: Final = (
    ("SELECT bridge.group_events(0)", "off"),
    ("SELECT bridge.push_due(2000, 500, 10, 20)", "off"),
    ("SELECT bridge.claim(0, gen_random_uuid(), 15, 50)", "off"),
    ("SELECT bridge.renew('{}', '{}', 15)", "off"),
    ("SELECT bridge.finish(0, gen_random_uuid(), '', 0)", "on"),
    ("SELECT bridge.deliver_turn(0)", "on"),
    ("SELECT bridge.deliver_due(16, '{}')", "on"),
    ("SELECT bridge.fail(0, gen_random_uuid(), '', 1, true)", "on"),
)


@without(("finish", "BEGIN SELECT id,", "BEGIN SET LOCAL synchronous_commit = off; SELECT id,"))
def test_T6_no_reply_is_committed_before_it_is_on_disk(bridge: Bridge) -> None:
    """A crash of PostgreSQL may forget a group, a push, a claim or a renewal: they are made again, with a new token."""
    for step, setting in _STEPS:
        session = bridge.session(SERVICE)
        bridge.rows("SET LOCAL synchronous_commit = on", connection=session)
        bridge.rows(step, connection=session)
        assert bridge.value("SHOW synchronous_commit", connection=session) == setting, step


# T7: whatever ends an active turn wakes the waiting one.


def _answered(bridge: Bridge, match: str, claim: Claim) -> str:
    del match
    with bridge.policy(max_merges=0):
        bridge.finish(claim)
    bridge.advance(6)
    return bridge.deliver(claim.turn, max_merges=0).name


def _superseded(bridge: Bridge, match: str, claim: Claim) -> str:
    del match
    return bridge.finish(claim, pause=0).name


def _gone(bridge: Bridge, match: str, claim: Claim) -> str:
    bridge.rows("DELETE FROM messages WHERE match_id = %s AND content = 'un'", match)
    return _answered(bridge, match, claim)


def _gone_when_claimed(bridge: Bridge, match: str, claim: Claim) -> str:
    bridge.rows("DELETE FROM messages WHERE match_id = %s AND content = 'un'", match)
    bridge.store.release({claim.turn: claim.token})
    return bridge.claim(claim.turn).outcome.name


def _refused(bridge: Bridge, match: str, claim: Claim) -> str:
    bridge.rows(
        "CREATE OR REPLACE FUNCTION bridge.deliver(p_turn bigint, p_message uuid, p_match uuid, p_bot uuid,"
        " p_content text, p_created_at timestamptz) RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'"
    )
    return _answered(bridge, match, claim)


def _dead(bridge: Bridge, match: str, claim: Claim) -> str:
    del match
    bridge.rows("UPDATE bridge.turns SET attempts = %s WHERE id = %s", MAX_ATTEMPTS - 1, claim.turn)
    return bridge.store.fail(claim.turn, claim.token, "broken", retry=1, counts=True).name


def _lost(bridge: Bridge, match: str, claim: Claim) -> str:
    del match
    bridge.rows(
        "UPDATE bridge.turns SET due_at = bridge.now(), takeovers = %s WHERE id = %s", MAX_TAKEOVERS - 1, claim.turn
    )
    bridge.step(PUSH, 2000, 20)
    return str(bridge.turn(claim.turn).state)


@pytest.mark.parametrize(
    ("way", "outcome"),
    [
        (_answered, "answered"),
        (_superseded, "superseded"),
        (_gone, "cancelled"),
        (_gone_when_claimed, "cancelled"),
        (_refused, "cancelled"),
        (_dead, "dead"),
        (_lost, "dead"),
    ],
)
@without(
    (
        "end_turn",
        "UPDATE bridge.turns t SET due_at = greatest(v_now, t.retry_at), pushes = -1 WHERE t.match_id = v_match",
        "UPDATE bridge.turns t SET due_at = v_now, pushes = 0 WHERE false AND t.match_id = v_match",
    )
)
def test_T7_every_end_wakes_the_waiting_turn(
    bridge: Bridge, way: Callable[[Bridge, str, Claim], str], outcome: str
) -> None:
    """However an active turn ends, the waiting one is due at once, and the bell rings."""
    match, active, waiting = active_and_waiting(bridge)
    bell = bridge.listen()
    assert not is_due(bridge, waiting)

    assert way(bridge, match, active) == outcome

    assert is_due(bridge, waiting)
    assert "bridge_due" in {channel for channel, _ in bell.heard()}
    assert bridge.claim(waiting).outcome.name == "claimed"


@without(
    (
        "waits_for_active",
        "IF NOT FOUND THEN UPDATE bridge.turns SET due_at = least",
        "IF false THEN UPDATE bridge.turns SET due_at = least",
    )
)
def test_T7_a_turn_pushed_while_the_active_one_ends_is_not_forgotten(bridge: Bridge) -> None:
    """A claim that meets an end under way, which looked before the push, makes its turn due again soon."""
    match = bridge.match()
    bridge.write(match)
    active = bridge.typing(match)
    worker = bridge.session(SERVICE)
    bridge.rows(DELIVER, active, connection=worker)
    bridge.write(match)
    waiting = bridge.pushed(match)

    assert bridge.claim(waiting).outcome.name == "busy"
    worker.commit()

    bridge.advance(1)
    assert is_due(bridge, waiting)
    assert bridge.claim(waiting).outcome.name == "claimed"


# T8: what is due is found by index.


def _rows_read(bridge: Bridge, table: str, statement: str, *parameters: object, role: str = SERVICE) -> int:
    session = bridge.session(role)
    bridge.rows(statement, *parameters, connection=session)
    return int(
        bridge.value(
            "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables"
            " WHERE schemaname = 'bridge' AND relname = %s",
            table,
            connection=session,
        )
    )


@without(("push_due", "t.due_at <= v_now", "t.due_at <= bridge.now()"))
def test_T8_looking_for_what_is_due_reads_nothing_else(bridge: Bridge) -> None:
    """A push reads the one turn that is due out of thousands that are finished, waiting or active."""
    bridge.rows(
        "INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, due_at, ended_at, draft, deliver_at,"
        " reply_message_id, answered_at)"
        " SELECT 'reply', gen_random_uuid(), %s, s, bridge.now(),"
        " CASE WHEN s <> 'answered' THEN bridge.now() + '1 h' END,"
        " CASE WHEN s = 'answered' THEN bridge.now() END, CASE WHEN s = 'typing' THEN '' END,"
        " bridge.now(), gen_random_uuid(), bridge.now()"
        " FROM generate_series(1, 500), unnest('{open,queued,composing,typing,answered}'::text[]) s",
        CAMILLE,
    )
    bridge.rows("UPDATE bridge.turns SET due_at = bridge.now() WHERE id = (SELECT min(id) FROM bridge.turns)")
    bridge.rows("ANALYZE bridge.turns")
    # Counting what is queued, for the window, reads that window.
    assert _rows_read(bridge, "turns", PUSH, 20, 20) < 60
    assert _rows_read(bridge, "turns", "SELECT * FROM bridge.next_due(20)") < 60
    assert _rows_read(bridge, "turns", "SELECT * FROM bridge.next_due(20, false)") < 60
    assert _rows_read(bridge, "turns", "SELECT bridge.deliver_due(16, '{}')") < 60


def _fill(bridge: Bridge, many: int) -> None:
    """Make so many finished replies, as many finished openers, and a tenth of that of open groups."""
    columns = "INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, reason, ended_at, due_at) SELECT"
    bridge.rows(
        f"{columns} k, gen_random_uuid(), %s, 'cancelled', bridge.now(), 'gone', bridge.now(), NULL"
        " FROM generate_series(1, %s), unnest('{reply,initiation}'::text[]) k",
        CAMILLE,
        many,
    )
    bridge.rows(
        f"{columns} 'reply', gen_random_uuid(), %s, 'open', bridge.now(), NULL, NULL, bridge.now() + interval '1 h'"
        " FROM generate_series(1, %s)",
        CAMILLE,
        many // 10,
    )
    bridge.rows("ANALYZE bridge.turns")


@without(("sql", "DROP INDEX bridge.turns_due_opener"))
def test_T8_looking_for_the_next_opener_passes_over_no_group(bridge: Bridge) -> None:
    """However many groups are open, and however many openers there were, the next opener is found by its index."""
    _fill(bridge, 10_000)
    assert _rows_read(bridge, "turns", "SELECT * FROM bridge.next_due(20)") < 60


@without(("reset_pushes", "WHERE p.state = 'queued'", "WHERE p.state || '' = 'queued'"))
def test_T8_the_return_of_redis_reads_no_history(bridge: Bridge) -> None:
    """What was pushed is made due without a look at what is finished or was never pushed."""
    _fill(bridge, 10_000)
    assert _rows_read(bridge, "turns", "SELECT bridge.reset_pushes()") < 60


@without(("ring_due", "t.due_at > (SELECT bridge.now())", "t.due_at > bridge.now()"))
def test_T8_ringing_for_what_is_due_passes_over_no_backlog(bridge: Bridge) -> None:
    """A worker that hands in a draft reads none of the thousands of deliveries that are overdue already."""
    bridge.rows(
        "INSERT INTO bridge.turns"
        " (kind, match_id, bot_id, state, opened_at, due_at, draft, deliver_at, reply_message_id)"
        " SELECT 'reply', gen_random_uuid(), %s, 'typing', n.now, n.now - interval '1 min', '', n.now,"
        " gen_random_uuid()"
        " FROM generate_series(1, 2000), (SELECT bridge.now()) n (now)",
        CAMILLE,
    )
    bridge.rows("ANALYZE bridge.turns")
    ring = "SELECT bridge.ring_due(max(id), bridge.now() + interval '5 s') FROM bridge.turns"
    assert _rows_read(bridge, "turns", ring, role=ADMIN) < 60


@without(("sql", "DROP INDEX bridge.events_ungrouped; DROP INDEX bridge.events_ungrouped_match"))
def test_T8_looking_for_what_is_ungrouped_reads_no_history(bridge: Bridge) -> None:
    """A grouping reads the ungrouped events, not the thousands that have found their turns."""
    match = bridge.match()
    bridge.write(match)
    [event] = bridge.group()
    bridge.rows(
        "INSERT INTO bridge.events (kind, match_id, message_id, bot_id, turn_id, captured_at)"
        " SELECT 'message', gen_random_uuid(), gen_random_uuid(), %s, %s, bridge.now() FROM generate_series(1, 2000)",
        CAMILLE,
        event.turn_id,
    )
    bridge.rows("ANALYZE bridge.events")
    assert _rows_read(bridge, "events", GROUP) < 100


def test_each_kind_of_turns_either_answers_or_speaks_first(bridge: Bridge) -> None:
    """For every kind that Python knows exactly one of the two functions of kinds says yes."""
    for kind in Kind:
        [answer] = bridge.rows("SELECT bridge.answers(%s), bridge.speaks_first(%s)", kind.value, kind.value)
        assert sorted(answer) == [False, True], kind


@pytest.mark.parametrize(
    ("index", "condition"),
    [
        ("turns_one_waiting", "match_id = gen_random_uuid() AND bridge.is_waiting(kind, state)"),
        ("turns_speaking_first", "match_id = gen_random_uuid() AND bridge.speaks_first(kind)"),
        ("turns_due_opener", "bridge.speaks_first(kind) AND state = 'open'"),
        ("turns_ended", "bridge.answers(kind) AND state IN ('answered', 'cancelled') AND ended_at < bridge.now()"),
    ],
)
@without(*(("sql", f"ALTER FUNCTION bridge.{name} SET jit = off") for name in ("answers(text)", "speaks_first(text)")))
def test_T8_an_index_of_some_kinds_serves_a_condition_that_names_their_property(
    bridge: Bridge, index: str, condition: str
) -> None:
    """PostgreSQL inlines the functions of kinds, so the plan is as for a literal."""
    bridge.rows("SET enable_seqscan = off")
    plan = bridge.rows(f"EXPLAIN SELECT id FROM bridge.turns WHERE {condition} ORDER BY due_at LIMIT 1")  # noqa: S608
    assert any(re.search(rf"\b{index}\b", line) for [line] in plan), plan


_UNGROUPED: Final = "WHERE e.id = ANY (v_taken) AND (e.kind = 'message') IS TRUE AND e.turn_id IS NULL"
_WAITING: Final = "t.match_id = e.match_id AND bridge.is_waiting(t.kind, t.state)"


@without(
    (
        "group_events",
        f"turn_id = (SELECT t.id FROM bridge.turns t WHERE {_WAITING}) {_UNGROUPED}",  # noqa: S608 - no value in it
        f"turn_id = t.id FROM bridge.turns t {_UNGROUPED} AND {_WAITING}",
    )
)
def test_T8_a_backlog_is_grouped_without_joining_all_with_all(bridge: Bridge) -> None:
    """Grouping 1,000 conversations reads no million rows, although by the statistics hardly any turn ever waits."""
    bridge.rows(
        "INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, ended_at, answered_at, reply_message_id)"
        " SELECT 'reply', gen_random_uuid(), %s, 'answered', n.now, n.now, n.now, gen_random_uuid()"
        " FROM generate_series(1, 20000), (SELECT bridge.now()) n (now)",
        CAMILLE,
    )
    bridge.rows("ANALYZE bridge.turns")
    bridge.rows(
        "INSERT INTO bridge.events (kind, match_id, message_id, bot_id, sender_id, captured_at)"
        " SELECT 'message', gen_random_uuid(), gen_random_uuid(), %s, %s, bridge.now() FROM generate_series(1, 1000)",
        *(CAMILLE, LEA),
    )
    assert _rows_read(bridge, "turns", GROUP) < 100_000


@without(
    (
        "push_due",
        "WHERE e.turn_id = p.id AND (e.kind = 'message') IS TRUE)",
        "WHERE e.turn_id = p.id AND e.kind = 'message')",
    )
)
def test_T8_a_backlog_is_pushed_without_reading_all_of_it_for_each(bridge: Bridge) -> None:
    """Pushing 500 of 4,000 groups reads their events and no others', although no statistics were made of them."""
    bridge.rows(
        "INSERT INTO bridge.events (kind, match_id, message_id, bot_id, sender_id, captured_at)"
        " SELECT 'message', gen_random_uuid(), gen_random_uuid(), %s, %s, bridge.now() FROM generate_series(1, 4000)",
        *(CAMILLE, LEA),
    )
    bridge.group()
    bridge.advance(GROUPING_DELAY + 1)
    pushing = bridge.session(SERVICE)
    pushes = bridge.rows("SELECT * FROM bridge.push_due(2000, 500, 10, 20)", connection=pushing)
    assert len(pushes) == 500
    read = bridge.value(
        "SELECT sum(pg_stat_get_xact_tuples_returned(oid)) FROM pg_class WHERE relnamespace = 'bridge'::regnamespace"
        " AND relname ~ '^(events|turns)'",
        connection=pushing,
    )
    assert read < 20_000


def _backlog(bridge: Bridge, state: str | None = None, many: int = 330) -> None:
    """So many conversations wait, ungrouped or in a state, where by the statistics none does.

    330, because of these an index of times is one page and an index of conversations two: the worse one looks better.
    """
    _fill(bridge, 300)
    bridge.rows("DELETE FROM bridge.turns WHERE state = 'open'")
    bridge.rows("VACUUM ANALYZE bridge.events")
    bridge.rows("VACUUM ANALYZE bridge.turns")
    if state is None:
        bridge.rows(
            "INSERT INTO bridge.events (kind, match_id, message_id, bot_id, sender_id, captured_at)"
            " SELECT 'message', gen_random_uuid(), gen_random_uuid(), %s, %s, bridge.now() FROM generate_series(1, %s)",
            *(CAMILLE, LEA, many),
        )
    else:
        bridge.rows(
            "INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, due_at, token)"
            " SELECT 'reply', gen_random_uuid(), %s, %s, bridge.now(), bridge.now() + interval '1 h', gen_random_uuid()"
            " FROM generate_series(1, %s)",
            *(CAMILLE, state, many),
        )


@without(("ungrouped_events", "e.match_id BETWEEN p_match AND p_match", "e.match_id = p_match"))
def test_T8_a_claim_and_a_delivery_read_no_backlog_of_others(bridge: Bridge) -> None:
    """What is ungrouped in a conversation is found by it, although by the statistics any index of it is empty."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match)
    other = bridge.match()
    bridge.write(other)
    typing = bridge.typing(other)
    bridge.advance(5)
    _backlog(bridge)
    assert _rows_read(bridge, "events", CLAIM, turn, str(uuid4())) < 60
    assert _rows_read(bridge, "events", DELIVER, typing) < 60


@without(("sql", "DROP INDEX bridge.turns_one_active"))
def test_T8_a_claim_reads_no_active_turns_of_others(bridge: Bridge) -> None:
    """Whether a conversation's turn is active is found by it, although by the statistics none is."""
    _backlog(bridge, "composing")
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match)
    assert _rows_read(bridge, "turns", CLAIM, turn, str(uuid4())) < 60


@without(
    ("end_turn", "bridge.is_waiting(t.kind, t.state) AND (t.state = 'queued') IS TRUE", "t.state = 'queued'"),
    ("next_turn", "bridge.is_waiting(t.kind, t.state) AND (t.state = 'queued') IS TRUE", "t.state = 'queued'"),
)
def test_T8_an_end_reads_no_queued_turns_of_others(bridge: Bridge) -> None:
    """The waiting turn that an end wakes is found by its conversation, although by the statistics none is queued."""
    _backlog(bridge, "queued")
    match = bridge.match()
    bridge.write(match)
    typing = bridge.typing(match)
    bridge.advance(5)
    assert _rows_read(bridge, "turns", DELIVER, typing) < 60


@without(("renew", "(t.state = 'composing') IS TRUE", "t.state = 'composing'"))
def test_T8_a_renewal_reads_no_active_turns_of_others(bridge: Bridge) -> None:
    """A worker's own turns are found by their ids, although by the statistics no turn is active."""
    _backlog(bridge, "composing")
    assert _rows_read(bridge, "turns", "SELECT bridge.renew(%s::bigint[], %s::uuid[], 15)", [0], [str(uuid4())]) < 60


@without(("sql", "DROP INDEX bridge.turns_one_active"))
def test_T8_a_full_window_is_counted_without_reading_all_that_is_active_for_each(bridge: Bridge) -> None:
    """Whether a queued turn waits for an active one is looked up, although by the statistics none is active."""
    _backlog(bridge, "queued", 300)
    bridge.rows(
        "INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, due_at)"
        " SELECT 'reply', gen_random_uuid(), %s, 'composing', bridge.now(), bridge.now() FROM generate_series(1, 300)",
        CAMILLE,
    )
    assert _rows_read(bridge, "turns", "SELECT bridge.window_room(300)", role=ADMIN) < 2000


@without(("verify", "repeated AS MATERIALIZED (", "repeated AS ("))
def test_T8_the_ledger_does_not_read_all_answers_for_each_message(bridge: Bridge) -> None:
    """However many answers there are that no statistics know of, they are read a few times and no oftener."""
    bridge.rows(
        "WITH open AS ("
        " INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, due_at)"
        " SELECT 'reply', gen_random_uuid(), %s, 'open', bridge.now(), bridge.now() FROM generate_series(1, 16000)"
        " RETURNING id, match_id)"
        " INSERT INTO bridge.events (kind, match_id, message_id, bot_id, sender_id, captured_at, turn_id)"
        " SELECT 'message', o.match_id, gen_random_uuid(), %s, %s, bridge.now(), o.id FROM open o",
        *(CAMILLE, CAMILLE, LEA),
    )
    for state in ("queued", "composing"):
        bridge.rows("UPDATE bridge.turns SET state = %s", state)
    bridge.rows(
        "UPDATE bridge.turns t SET state = 'answered', due_at = NULL, ended_at = t.opened_at,"
        " answered_at = t.opened_at, reply_message_id = gen_random_uuid(),"
        " covers = (SELECT array_agg(e.id) FROM bridge.events e WHERE e.turn_id = t.id)"
    )
    session = bridge.session(ADMIN)
    bridge.rows("SET LOCAL statement_timeout = '10s'", connection=session)
    bridge.rows("SELECT bridge.verify(30, 5)", connection=session)
    read = bridge.value("SELECT pg_stat_get_xact_tuples_returned('bridge.turns'::regclass)", connection=session)
    assert read < 100_000


# T9: pushes are bounded.


def _push(bridge: Bridge, *, window: int = 2000, again_max: float = 80.0) -> list[int]:
    return [turn for (turn,) in bridge.step(PUSH, window, again_max)]


def _three_due(bridge: Bridge) -> list[int]:
    for _ in range(3):
        bridge.write(bridge.match())
    turns = [event.turn_id for event in bridge.group()]
    bridge.advance(GROUPING_DELAY + 1)
    return turns


@without(("push_due", "LIMIT least(p_limit, v_room)", "LIMIT p_limit"))
def test_T9_no_more_than_the_window_is_queued(bridge: Bridge) -> None:
    """With a full window the rest stays `open`, and each turn that is taken makes room for the next."""
    first, second, third = _three_due(bridge)
    assert _push(bridge, window=2) == [first, second]
    assert _push(bridge, window=2) == []
    assert bridge.turn(third).state == "open"
    bridge.claim(second)
    assert _push(bridge, window=2) == [third]


@without(("window_room", "IF v_taken >= p_window THEN", "IF false THEN"))
def test_T9_who_waits_for_an_active_turn_takes_nobody_s_place(bridge: Bridge) -> None:
    """While a bot types, no worker can take the next turn of its conversation: it is not counted as waiting for one."""
    match = bridge.match()
    bridge.write(match)
    assert bridge.finish(bridge.claimed(match), pause=600).name == "typing"
    bridge.write(match)
    [behind] = {event.turn_id for event in bridge.group()}
    bridge.advance(GROUPING_DELAY)
    assert _push(bridge, window=1) == [behind]
    bridge.write(bridge.match())
    [other] = {event.turn_id for event in bridge.group()}
    bridge.advance(GROUPING_DELAY)
    assert other in _push(bridge, window=1)


@without(("next_due", "greatest(t.due_at, v_room_at)", "t.due_at"))
def test_T9_a_full_window_is_looked_at_again_soon_and_not_at_once(bridge: Bridge) -> None:
    """Claims make room and ring no bell: while a due turn finds none, the clock asks twice a second and no oftener."""
    _three_due(bridge)
    _push(bridge, window=2)
    due_at, now = bridge.step("SELECT flush_at, now FROM bridge.next_due(2)")[0]
    assert due_at - now == timedelta(seconds=0.5)


@without(("next_due", "IF bridge.window_room(p_window) <= 0 THEN", "IF true THEN"))
def test_T9_a_window_with_room_delays_nobody(bridge: Bridge) -> None:
    """An open turn is looked at again in its own time."""
    *_, third = _three_due(bridge)
    _push(bridge, window=2)
    [[due_at]] = bridge.step("SELECT flush_at FROM bridge.next_due(3)")
    assert due_at == bridge.turn(third).due_at


@without(("push_due", "EXCEPTION WHEN lock_not_available THEN", "EXCEPTION WHEN division_by_zero THEN"))
def test_T9_turns_that_somebody_holds_hold_up_no_other_s_push(bridge: Bridge) -> None:
    """In whichever state a frozen session holds a turn, or the one that a dead turn would wake, the rest is pushed."""
    bridge.impatient()
    matches = [bridge.match() for _ in range(6)]
    for match in matches[:4]:
        bridge.write(match)
        turn = bridge.typing(match)
    typing, composing, queued, dying = (bridge.turns(match)[0].id for match in matches[:4])
    assert turn == dying
    for match in matches[3:]:
        bridge.write(match)
    bridge.group()
    woken, held, free = (bridge.turns(match)[-1].id for match in matches[3:])
    back = "UPDATE bridge.turns SET draft = NULL, deliver_at = NULL, reply_message_id = NULL, token = {}, state = {}"
    back += " WHERE id IN (%s, %s)"
    bridge.rows(back.format("gen_random_uuid()", "'composing'"), composing, dying)
    bridge.rows(back.format("NULL", "'queued'"), queued, woken)
    bridge.rows("UPDATE bridge.turns SET takeovers = %s WHERE id = %s", MAX_TAKEOVERS - 1, dying)
    bridge.rows("UPDATE bridge.turns SET due_at = bridge.now() WHERE due_at IS NOT NULL")

    frozen = bridge.session(ADMIN)
    locked = [composing, queued, woken, held]
    bridge.rows("SELECT FROM bridge.turns WHERE id = ANY (%s) FOR UPDATE", [typing, *locked], connection=frozen)
    assert {push.turn_id: push.step for push in bridge.push()} == {free: "compose", dying: "compose"}
    frozen.rollback()
    assert {push.turn_id for push in bridge.push()} == set(locked)

    with bridge.policy(max_merges=0):
        assert bridge.claim(dying).outcome.name == "claimed"
    bridge.advance(16)
    assert {push.turn_id: push.step for push in bridge.push()}[dying] == "dead"


@without(("push_due", "p_again * 2 ^ least(greatest(t.pushes, 0), 20), p_again_max", "p_again, p_again_max"))
def test_T9_the_interval_of_pushing_again_doubles(bridge: Bridge) -> None:
    """A push that nobody takes is repeated after 10, 20, 40 and 80 s, and then every 80."""
    turn = _three_due(bridge)[0]
    for seconds in (10, 20, 40, 80, 80):
        assert turn in _push(bridge)
        bridge.advance(seconds - 2)
        assert not is_due(bridge, turn)
        bridge.advance(2)
        assert is_due(bridge, turn)


@without(("reset_pushes", "SET due_at = greatest(v_now, t.retry_at), pushes = 0", "SET due_at = t.due_at"))
def test_T9_all_that_was_pushed_is_due_when_redis_is_back(bridge: Bridge) -> None:
    """Queued turns are due at once, and their intervals begin anew."""
    turns = _three_due(bridge)
    for _ in range(3):
        _push(bridge)
        bridge.advance(100)
    _push(bridge)
    assert not any(is_due(bridge, turn) for turn in turns)

    assert bridge.store.reset_pushes() == 3
    assert sorted(_push(bridge)) == sorted(turns)
    bridge.advance(10)
    assert all(is_due(bridge, turn) for turn in turns)


@without(
    (
        "reset_pushes",
        "AND p.token IS NULL AND p.pushes > 0 AND p.due_at > v_now",
        "AND p.due_at > v_now",
    )
)
def test_T9_what_was_not_pushed_keeps_its_time(bridge: Bridge) -> None:
    """A worker's lease and a delivery whose time has not come are not touched when Redis is back."""
    first, second = bridge.match(), bridge.match()
    bridge.write(first)
    bridge.write(second)
    composing = bridge.claimed(first)
    [other] = bridge.turns(second)
    typing = bridge.claim(other.id)
    bridge.finish(typing, pause=60)
    before = [bridge.turn(turn).due_at for turn in (composing.turn, typing.turn)]

    assert bridge.store.reset_pushes() == 0
    assert [bridge.turn(turn).due_at for turn in (composing.turn, typing.turn)] == before


# T10: every step is one autocommit call of one function, which does not wait for long.

_FUNCTIONS: Final = "SELECT proname FROM pg_proc p WHERE pronamespace = 'bridge'::regnamespace"
_HELPERS: Final = {
    "quiet_at",
    "quiet_until",
    "now",
    "draw",
    "assert_read_committed",
    "spread",
    "blame",
    "max_attempts",
    "max_takeovers",
    "turn_is_sound",
    "event_is_sound",
    "answers",
    "speaks_first",
    "is_waiting",
    "old_match_key",
}  # read nothing
_INLINED: Final = {
    "conversation",
    "ended",
    "has_hours",
    "has_typing",
    "is_left",
    "persona",
    "policy",
    "profile",
    "withdrawn",
}  # run with the rights of the function that calls them
_APPS: Final = {
    *("capture_match", "capture_message", "before_message", "after_message", "after_match"),
    *("after_change", "capture_change", "capture_human", "pause", "share_match"),
}


def _names(bridge: Bridge, condition: str) -> set[str]:
    return {name for (name,) in bridge.rows(f"{_FUNCTIONS} AND {condition}")}


_CLAIM: Final = "bridge.claim(bigint, uuid, double precision, integer, boolean)"


@without(("sql", f"ALTER FUNCTION {_CLAIM} RESET lock_timeout"))
def test_T10_every_function_that_locks_gives_up_soon(bridge: Bridge) -> None:
    """Every function that locks has a lock timeout of 300 ms; those that the app's transaction runs have none (C1)."""
    bridge.impatient()
    patient = _names(bridge, "'lock_timeout=0' = ANY (p.proconfig)")
    impatient = _names(bridge, "'lock_timeout=300ms' = ANY (p.proconfig)")
    assert patient == _APPS
    locking = _names(bridge, "p.provolatile = 'v' AND p.prosrc ~ '(UPDATE|INSERT|DELETE|FOR (KEY )?SHARE)'")
    assert {"group_events", "push_due", "claim", "finish", "deliver_turn", "fail", "renew"} <= locking
    # Each of these is called by one function alone, or waits as long as its caller does.
    assert locking - patient - {"deliver", "show_typing", "act_pause"} <= impatient


@without(("sql", f"ALTER FUNCTION {_CLAIM} SECURITY INVOKER"))
def test_T10_every_function_runs_with_its_owners_rights(bridge: Bridge) -> None:
    """Every function that touches a table is SECURITY DEFINER, except those that PostgreSQL inlines into them."""
    assert _names(bridge, "NOT p.prosecdef") == _HELPERS | _INLINED


@without(("claim", "SET lock_timeout = '300ms'", ""))
def test_T10_a_step_that_meets_a_lock_gives_up(bridge: Bridge) -> None:
    """A claim of a turn that somebody else holds raises DatabaseBusy instead of waiting, and changes nothing."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match)
    bridge.impatient()
    holder = bridge.session(ADMIN)
    bridge.rows("SELECT FROM bridge.turns WHERE id = %s FOR UPDATE", turn, connection=holder)

    with pytest.raises(DatabaseBusy):
        bridge.run(claimed_by(uuid4(), turn)).result(timeout=3)
    holder.rollback()
    assert bridge.turn(turn).state == "queued"


def test_T10_no_step_leaves_a_transaction_open(bridge: Bridge) -> None:
    """A worker that freezes after a call of the store holds no lock."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match)
    claim = bridge.run(claimed_by(uuid4(), turn))
    assert claim.result().name == "claimed"
    assert bridge.value("SELECT state FROM pg_stat_activity WHERE pid = %s", claim.pid) == "idle"
    assert bridge.value("SELECT count(*) FROM pg_locks WHERE pid = %s", claim.pid) == 0


# A1: what counts as a failure.


@without(
    (
        "push_due",
        "takeovers = t.takeovers + (t.token IS NOT NULL)::integer,",
        "attempts = t.attempts + (t.token IS NOT NULL)::integer,",
    )
)
def test_A1_a_worker_that_dies_counts_apart(bridge: Bridge) -> None:
    """Leases that run out are counted by themselves, and are no attempts; a push of what nobody took counts nothing."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match)
    for _ in range(MAX_ATTEMPTS + 1):
        assert bridge.claim(turn).outcome.name == "claimed"
        bridge.advance(16)
        assert [push.recovered for push in bridge.push()] == [True]
        bridge.advance(21)
        assert [push.recovered for push in bridge.push()] == [False]
    assert (bridge.turn(turn).attempts, bridge.turn(turn).takeovers) == (0, MAX_ATTEMPTS + 1)


@without(("push_due", "t.takeovers + 1 >= bridge.max_takeovers()", "false"))
def test_A1_a_turn_that_kills_its_workers_is_dead(bridge: Bridge) -> None:
    """The twentieth lease that runs out ends the turn, so that it cannot kill workers for ever."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match)
    for _ in range(MAX_TAKEOVERS):
        assert bridge.claim(turn).outcome.name == "claimed"
        bridge.advance(16)
        bridge.push()
    assert bridge.turn(turn).state == "dead"
    assert "20 times" in bridge.turn(turn).last_error
