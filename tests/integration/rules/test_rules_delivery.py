from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest

from tests.support.policy import MAX_ATTEMPTS
from tests.support.roles import ADMIN, OWNER, SERVICE
from tests.support.rules import CAMILLE, GROUPING_DELAY, HUGO, LEA, MAX_MERGES, WRITE, Bridge, without

if TYPE_CHECKING:
    from tests.support.rules import Taken

DELIVER: Final = "SELECT bridge.deliver_turn(%s)"

COUNTER: Final = f"""
    CREATE TABLE counters (messages integer); INSERT INTO counters VALUES (0);
    GRANT SELECT, UPDATE ON counters TO {OWNER};
    CREATE FUNCTION count_messages() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        UPDATE counters SET messages = messages + 1;
        RETURN NEW;
    END $$;
    CREATE TRIGGER counts AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION count_messages();
"""  # noqa: S608 - the role is ours
"""A trigger of the app's; for a reply it runs with the rights of the bridge's owner."""

# Rule D1: the last look


@without(("newer_turn", "e WHERE e.kind = 'message';", "e WHERE false;"))
def test_D1_a_message_that_nobody_grouped_yet_supersedes_the_reply(bridge: Bridge) -> None:
    """A reply makes way for a newer message that no scheduler has seen, and one answer covers both."""
    match = bridge.match()
    first = bridge.write(match)
    turn = bridge.typing(match)
    captured = bridge.value("SELECT bridge.now()")
    second = bridge.write(match, "encore là ?")

    assert bridge.deliver(turn).name == "superseded"
    [stale, waiting] = bridge.turns(match)
    assert (stale.state, stale.reason, stale.draft) == ("cancelled", "superseded", None)
    assert waiting.due_at - captured < timedelta(seconds=GROUPING_DELAY + 5)
    assert bridge.covered(waiting.id) == [first]
    bridge.group()
    assert bridge.covered(waiting.id) == [first, second]
    assert bridge.deliver(bridge.typing(match)).name == "answered"
    assert [sender for sender, _ in bridge.messages(match)] == [LEA, LEA, CAMILLE]


@without(("newer_turn", "IF v_first IS NULL AND v_waiting IS NULL THEN", "IF v_first IS NULL THEN"))
def test_D1_a_waiting_turn_supersedes_the_reply(bridge: Bridge) -> None:
    """A reply makes way for a newer message that was grouped already."""
    match = bridge.match()
    first = bridge.write(match)
    turn = bridge.typing(match)
    second = bridge.write(match, "encore là ?")
    bridge.group()

    assert bridge.deliver(turn).name == "superseded"
    [_, waiting] = bridge.turns(match)
    assert bridge.covered(waiting.id) == [first, second]


@without(
    (
        "supersede",
        "WHERE turn_id = p_turn;",
        """WHERE turn_id = p_turn
           OR turn_id IS NULL AND match_id = (SELECT t.match_id FROM bridge.turns t WHERE t.id = p_turn);""",
    )
)
def test_D1_a_reply_that_makes_way_leaves_ungrouped_events_to_the_scheduler(bridge: Bridge) -> None:
    """A delivery and a scheduler that holds the newer message's event and wants the waiting turn do not deadlock."""
    match = bridge.match()
    first = bridge.write(match)
    turn = bridge.typing(match)
    second = bridge.write(match, "encore là ?")
    scheduler = bridge.session(ADMIN)
    bridge.rows("SELECT FROM bridge.events WHERE turn_id IS NULL FOR NO KEY UPDATE", connection=scheduler)

    delivering = bridge.run(lambda store: store.deliver(turn))
    delivering.settle()
    bridge.rows(f"SET LOCAL ROLE {SERVICE}", connection=scheduler)
    bridge.rows("SELECT * FROM bridge.group_events(0)", connection=scheduler)
    scheduler.commit()
    assert delivering.result().name == "superseded"
    assert bridge.covered(bridge.turns(match)[1].id) == [first, second]


@without(
    (
        "deliver_turn",
        "SELECT * INTO t FROM bridge.turns WHERE id = p_turn FOR NO KEY UPDATE;",
        """v_waiting := (SELECT min(e.id) FROM bridge.events e WHERE e.match_id = v_match AND e.turn_id IS NULL);
           SELECT * INTO t FROM bridge.turns WHERE id = p_turn FOR NO KEY UPDATE;""",
    ),
    (
        "deliver_turn",
        "v_waiting := bridge.newer_turn(t.id, p_max_merges);",
        "",
    ),
)
def test_D1_a_message_that_commits_while_the_delivery_waits_for_its_turn_is_not_ignored(bridge: Bridge) -> None:
    """The look is made after the lock: what came while the delivery waited for the turn counts."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    holder = bridge.session(ADMIN)
    bridge.rows("SELECT FROM bridge.turns WHERE id = %s FOR NO KEY UPDATE", turn, connection=holder)

    delivering = bridge.run(lambda store: store.deliver(turn))
    delivering.until_waiting()
    bridge.write(match, "encore là ?")
    holder.commit()
    assert delivering.result().name == "superseded"


# Rule D2: the chain has an end


@without(("supersede", "greatest(newer.merges, older.merges + (older.state = 'typing')::integer)", "newer.merges + 1"))
def test_D2_a_chain_of_superseded_replies_ends_after_max_merges(bridge: Bridge) -> None:
    """Somebody who never stops writing is answered all the same, to everything up to there."""
    match = bridge.match()
    written = [bridge.write(match)]
    for merges in range(1, MAX_MERGES + 1):
        turn = bridge.typing(match)
        written.append(bridge.write(match, "et puis"))
        outcome = bridge.deliver(turn)
        assert (outcome.name, outcome.details["merges"]) == ("superseded", merges)
    turn = bridge.typing(match)
    later = bridge.write(match, "et encore")
    assert bridge.deliver(turn).name == "answered"
    assert bridge.covered(turn) == written

    fresh = bridge.typing(match)
    assert bridge.covered(fresh) == [later]
    assert bridge.turn(fresh).merges == 0


# Rule D3: an in-doubt commit


NO_LOCK: Final = (
    "deliver_turn",
    "SELECT * INTO t FROM bridge.turns WHERE id = p_turn FOR NO KEY UPDATE;",
    "SELECT * INTO t FROM bridge.turns WHERE id = p_turn;",
)


@without(NO_LOCK)
def test_D3_a_delivery_during_the_first_ones_commit_waits_and_tells_its_reply(bridge: Bridge) -> None:
    """A worker that lost the answer delivers again, waits for the first commit and gets the id of the one reply."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    first = bridge.session(SERVICE)
    answer = bridge.value(DELIVER, turn, connection=first)
    assert answer["outcome"] == "answered"

    again = bridge.run(lambda store: store.deliver(turn))
    again.until_waiting()
    first.commit()
    outcome = again.result()
    assert (outcome.name, outcome.details["message_id"]) == ("answered", answer["message_id"])
    assert [sender for sender, _ in bridge.messages(match)] == [LEA, CAMILLE]


@without((*NO_LOCK[:2], "SELECT * INTO t FROM bridge.turns WHERE id = p_turn FOR NO KEY UPDATE SKIP LOCKED;"))
def test_D3_a_delivery_after_the_first_one_came_to_nothing_delivers(bridge: Bridge) -> None:
    """If the first commit failed, the repeated delivery inserts the same reply under the same id."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    chosen = bridge.turn(turn).reply_message_id
    first = bridge.session(SERVICE)
    bridge.rows(DELIVER, turn, connection=first)

    again = bridge.run(lambda store: store.deliver(turn))
    again.until_waiting()
    first.rollback()
    outcome = again.result()
    assert (outcome.name, outcome.details["message_id"]) == ("answered", chosen)
    assert "again" not in outcome.details
    assert [sender for sender, _ in bridge.messages(match)] == [LEA, CAMILLE]


@without(("deliver_turn", "CASE WHEN t.state = 'answered' THEN 'answered' ELSE 'nothing' END", "'nothing'"))
def test_D3_a_delivery_that_the_app_holds_up_is_waited_for(bridge: Bridge) -> None:
    """While a trigger of the app keeps a delivery from its commit, another one waits and is told the same reply."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    bridge.rows(
        f"""
        CREATE TABLE gate (open boolean); INSERT INTO gate VALUES (true); GRANT SELECT, UPDATE ON gate TO {OWNER};
        CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM FROM gate FOR UPDATE;
            RETURN NEW;
        END $$;
        CREATE TRIGGER passes AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION pass();
        """,  # noqa: S608 - the role is ours
        connection=bridge.people,
    )
    gate = bridge.session()
    bridge.rows("SELECT FROM gate FOR UPDATE", connection=gate)
    delivering = bridge.run(lambda store: store.deliver(turn))
    delivering.until_waiting()
    again = bridge.run(lambda store: store.deliver(turn))
    again.until_waiting()

    gate.commit()
    first, second = delivering.result(), again.result()
    assert (first.name, second.name) == ("answered", "answered")
    assert first.details["message_id"] == second.details["message_id"]
    assert [sender for sender, _ in bridge.messages(match)] == [LEA, CAMILLE]


@without(("finish", "ELSIF t.state NOT IN ('typing', 'answered') THEN", "ELSE"))
def test_D3_a_draft_handed_in_again_is_told_where_it_stands(bridge: Bridge) -> None:
    """A worker that lost the answer to its draft gets it again: typing, then answered with the reply's id."""
    match = bridge.match()
    bridge.write(match)
    claim = bridge.claimed(match)
    assert bridge.finish(claim, pause=5).name == "typing"
    planned = bridge.turn(claim.turn)
    bridge.advance(1)
    assert bridge.finish(claim, "tout autre chose", pause=5).name == "typing"
    assert bridge.turn(claim.turn) == planned

    bridge.advance(5)
    delivered = bridge.deliver(claim.turn)
    told = bridge.finish(claim)
    assert (told.name, told.details["message_id"]) == ("answered", delivered.details["message_id"])


# Rule D4: answered before inserted


@without(
    (
        "deliver_turn",
        "v_reply := bridge.say(",
        """UPDATE bridge.turns SET state = 'typing', draft = t.draft, due_at = bridge.now(), ended_at = NULL,
               answered_at = NULL WHERE id = t.id;
           v_reply := bridge.say(""",
    ),
    ("deliver_turn", "IF v_reply IS NULL THEN", "PERFORM bridge.end_turn(t.id, 'answered'); IF v_reply IS NULL THEN"),
)
def test_D4_the_reply_s_own_triggers_find_the_turn_answered(bridge: Bridge) -> None:
    """What fires on the bot's INSERT, the app's or ours, sees a conversation without an active turn."""
    bridge.rows("""
        CREATE TABLE seen (state text);
        CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
            INSERT INTO seen SELECT t.state FROM bridge.turns t WHERE t.match_id = NEW.match_id AND t.kind = 'reply';
            RETURN NEW;
        END $$;
        CREATE TRIGGER a_look_before BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION look();
        CREATE TRIGGER z_look_after AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION look();
    """)
    match = bridge.match()
    bridge.write(match)
    assert bridge.deliver(bridge.typing(match)).name == "answered"
    assert bridge.rows("SELECT state FROM seen") == [("answered",), ("answered",)]


@without(("deliver", "SET enable_seqscan FROM CURRENT SET jit FROM CURRENT", ""))
def test_D4_the_app_s_triggers_are_planned_as_they_are_for_the_app(bridge: Bridge) -> None:
    """What the bridge's steps forbid the planner is no matter of the app's."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    bridge.rows(
        """
        CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM set_config('bridge_test.seqscan', current_setting('enable_seqscan'), false);
            RETURN NULL;
        END $$;
        CREATE TRIGGER look AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION look();
        """,
        connection=bridge.connect(ADMIN),
    )
    session = bridge.session(ADMIN)
    bridge.advance(5)
    bridge.rows(DELIVER, turn, connection=session)
    assert bridge.value("SELECT current_setting('bridge_test.seqscan')", connection=session) == "on"


@without(("deliver", "SET search_path FROM CURRENT", "SET search_path = ''"))
def test_D4_the_app_s_triggers_find_their_tables_as_they_do_for_the_app(bridge: Bridge) -> None:
    """A trigger that names its tables without a schema works for a reply as it does for a message."""
    bridge.rows(COUNTER, connection=bridge.people)
    match = bridge.match()
    bridge.write(match)
    assert bridge.deliver(bridge.typing(match)).name == "answered"
    assert bridge.value("SELECT messages FROM counters") == 2


def _app_delivers(bridge: Bridge, body: str) -> None:
    """Replace `deliver` by the app's own version."""
    bridge.rows(
        """CREATE OR REPLACE FUNCTION bridge.deliver(
               p_turn bigint, p_message uuid, p_match uuid, p_bot uuid, p_content text, p_created_at timestamptz)
           RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$ BEGIN """
        + body
        + " END $$"
    )


@without(("deliver_turn", "coalesce(v_part, t.reply_message_id), t.match_id", "gen_random_uuid(), t.match_id"))
def test_D4_an_app_s_own_deliver_gets_what_it_needs_to_insert_once(bridge: Bridge) -> None:
    """It is called with the turn, the message's id chosen with the draft, the bridge's time and the draft."""
    bridge.rows(
        "CREATE TABLE delivered AS SELECT 0::bigint turn, gen_random_uuid() message, '' content, now() at LIMIT 0;"
        f" GRANT INSERT ON delivered TO {OWNER}"
    )
    _app_delivers(
        bridge, "INSERT INTO public.delivered VALUES (p_turn, p_message, p_content, p_created_at); RETURN p_message;"
    )
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match, "à demain")
    chosen = bridge.turn(turn).reply_message_id
    before = bridge.value("SELECT bridge.now()")

    assert bridge.deliver(turn).details["message_id"] == chosen
    [(*told, at)] = bridge.rows("SELECT * FROM delivered")
    assert told == [turn, chosen, "à demain"]
    assert before <= at <= bridge.value("SELECT bridge.now()")


@without(
    ("deliver_turn", "UPDATE bridge.turns SET reply_message_id = v_reply WHERE id = t.id;", "NULL;"),
)
def test_D4_the_turn_knows_the_reply_by_the_id_that_the_app_gave_it(bridge: Bridge) -> None:
    """Where the app's own `deliver` returns another id, that is the reply's."""
    other = str(uuid4())
    _app_delivers(bridge, f"RETURN '{other}';")
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    assert bridge.deliver(turn).details["message_id"] == other
    assert bridge.turn(turn).reply_message_id == other
    assert bridge.deliver(turn).details["message_id"] == other


# Rule D5: what may be gone


GONE: Final = pytest.mark.parametrize(
    "gone",
    [
        "DELETE FROM messages; DELETE FROM matches",
        "UPDATE matches SET user2_id = (SELECT id FROM profiles WHERE first_name = 'Hugo')",
        "UPDATE profiles SET is_bot = false WHERE first_name = 'Camille'",
        "UPDATE profiles SET is_bot = NULL WHERE first_name = 'Camille'",
        "DELETE FROM messages",
    ],
    ids=["match", "membership", "bot", "unknown bot", "messages"],
)
NO_CHECK: Final[tuple[Taken, ...]] = (
    ("task", 'IF NOT FOUND THEN RETURN \'{"reason": "gone"}\'; END IF;', ""),
    ("task", "IF bridge.answers(t.kind) AND v_covered = '[]' THEN RETURN '{\"reason\": \"gone\"}'; ELSIF", "IF"),
    ("is_gone", "RETURN true;", "RETURN false;"),
    ("is_gone", "RETURN NOT FOUND;", "RETURN false;"),
)


@without(*NO_CHECK)
@GONE
def test_D5_a_claim_of_what_is_gone_is_cancelled(bridge: Bridge, gone: str) -> None:
    """No worker composes for a match, a member, a bot or a message that is not there any more."""
    bridge.rows("ALTER TABLE profiles ALTER is_bot DROP NOT NULL")
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match)
    bridge.rows(gone)
    outcome = bridge.claim(turn).outcome
    assert (outcome.name, outcome.details.get("reason")) == ("cancelled", "gone")


@without(*NO_CHECK)
@GONE
def test_D5_a_delivery_to_what_is_gone_is_cancelled(bridge: Bridge, gone: str) -> None:
    """No reply is inserted for a match, a member, a bot or a message that went while the bot typed."""
    bridge.rows("ALTER TABLE profiles ALTER is_bot DROP NOT NULL")
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    bridge.rows(gone)
    outcome = bridge.deliver(turn)
    assert (outcome.name, outcome.details.get("reason")) == ("cancelled", "gone")
    assert CAMILLE not in [sender for sender, _ in bridge.messages(match)]


@without(
    (
        "is_gone",
        """PERFORM FROM bridge.history(p_match, p_messages, 0) h
           WHERE h.covered AND bridge.withdrawn(h.message_id) IS NOT TRUE;
           RETURN NOT FOUND;""",
        """RETURN (SELECT count(*) FROM bridge.history(p_match, p_messages, 0) h WHERE h.covered)
                  < cardinality(p_messages);""",
    )
)
def test_D5_one_message_that_is_left_is_answered(bridge: Bridge) -> None:
    """A group of which a message was deleted is answered as long as one is left."""
    match = bridge.match()
    deleted = bridge.write(match)
    bridge.write(match)
    turn = bridge.typing(match)
    bridge.rows("DELETE FROM messages WHERE id = %s", deleted)
    assert bridge.deliver(turn, max_merges=0).name == "answered"


@without(("deliver_turn", "IF v_state = '23503' AND", "IF false AND"))
def test_D5_a_match_that_goes_in_the_very_moment_of_the_delivery_is_gone(bridge: Bridge) -> None:
    """A reply whose match another transaction is deleting waits for it, and is cancelled without an attempt."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    app = bridge.session()
    bridge.rows("DELETE FROM messages; DELETE FROM matches", connection=app)

    delivering = bridge.run(lambda store: store.deliver(turn))
    delivering.until_waiting()
    app.commit()
    outcome = delivering.result()
    assert (outcome.name, outcome.details.get("reason")) == ("cancelled", "gone")
    assert bridge.turn(turn).attempts == 0


@without(("deliver", "SET CONSTRAINTS ALL IMMEDIATE;", ""))
def test_D5_what_the_app_checks_at_the_commit_is_known_before(bridge: Bridge) -> None:
    """A deferred foreign key or constraint trigger, as some frameworks make them all, ends the turn like any other."""
    bridge.rows("""
        ALTER TABLE messages DROP CONSTRAINT messages_match_id_fkey;
        ALTER TABLE messages ADD FOREIGN KEY (match_id) REFERENCES matches DEFERRABLE INITIALLY DEFERRED;
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE 'not on Sundays';
        END $$;
        CREATE CONSTRAINT TRIGGER refuses AFTER INSERT ON messages DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW WHEN (NEW.content = 'dimanche') EXECUTE FUNCTION refuse();
    """)
    raising, going = bridge.match(HUGO), bridge.match()
    bridge.write(raising, sender=HUGO)
    turn = bridge.typing(raising, "dimanche")
    assert bridge.deliver(turn).name == "failed"
    assert bridge.turn(turn).last_error == "P0001 not on Sundays"

    bridge.write(going)
    turn = bridge.typing(going)
    app = bridge.session()
    bridge.rows("DELETE FROM messages WHERE match_id = %s", going, connection=app)
    bridge.rows("DELETE FROM matches WHERE id = %s", going, connection=app)
    delivering = bridge.run(lambda store: store.deliver(turn))
    delivering.until_waiting()
    app.commit()
    assert delivering.result().details.get("reason") == "gone"


@without(("deliver_turn", "RAISE EXCEPTION USING ERRCODE = 'BR001';", "NULL;"))
def test_D5_a_reply_that_the_app_refuses_is_cancelled(bridge: Bridge) -> None:
    """NULL from the app's `deliver` ends the turn as refused, and what it had written is undone."""
    _app_delivers(
        bridge,
        "INSERT INTO public.messages (id, match_id, sender_id) VALUES (p_message, p_match, p_bot); RETURN NULL;",
    )
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    outcome = bridge.deliver(turn)
    assert (outcome.name, outcome.details.get("reason")) == ("cancelled", "refused")
    assert (bridge.turn(turn).state, bridge.turn(turn).reply_message_id) == ("cancelled", None)
    assert [sender for sender, _ in bridge.messages(match)] == [LEA]


@without(("deliver_turn", "WHEN OTHERS OR assert_failure THEN", "WHEN division_by_zero THEN"))
def test_D5_an_exception_of_the_app_is_an_attempt(bridge: Bridge) -> None:
    """An app that raises is asked again after 1, 2, 4, ... s, and in the end the turn is dead with its error."""
    _app_delivers(bridge, "RAISE 'the shop is closed' USING ERRCODE = 'feature_not_supported';")
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    bridge.stop_clock()
    for attempt in range(1, MAX_ATTEMPTS):
        assert bridge.deliver(turn).name == "failed"
        failed = bridge.turn(turn)
        assert (failed.state, failed.attempts, failed.draft) == ("typing", attempt, "coucou")
        assert (failed.due_at - bridge.value("SELECT bridge.now()")).total_seconds() == 2 ** (attempt - 1)
        bridge.advance(2 ** (attempt - 1))
    assert bridge.deliver(turn).name == "dead"
    dead = bridge.turn(turn)
    assert (dead.state, dead.last_error, dead.draft) == ("dead", "0A000 the shop is closed", None)
    assert [sender for sender, _ in bridge.messages(match)] == [LEA]


@without(("deliver_turn", "WHEN OTHERS OR assert_failure THEN", "WHEN division_by_zero THEN"))
def test_D5_an_app_that_recovers_is_answered_after_its_exception(bridge: Bridge) -> None:
    """A failed insertion leaves the turn typing with its draft, and the next delivery succeeds."""
    bridge.rows("ALTER TABLE messages ADD COLUMN lang text; UPDATE messages SET lang = 'fr'")
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    bridge.rows("UPDATE messages SET lang = 'fr'; ALTER TABLE messages ALTER lang SET NOT NULL")
    assert bridge.deliver(turn).name == "failed"
    assert bridge.turn(turn).last_error == "23502 (column lang of table public.messages)"
    bridge.rows("ALTER TABLE messages ALTER lang DROP NOT NULL")
    bridge.advance(2)
    assert bridge.store.due_deliveries(10, []) == [turn]
    assert bridge.deliver(turn).name == "answered"
    assert bridge.messages(match)[1] == (CAMILLE, "coucou")


@pytest.mark.parametrize(
    "state",
    [
        *["42501", "25006", "25P04", "08006", "53100", "57P03", "58030", "XX001", "HV000", "42P01", "42883", "3F000"],
        "40001",
    ],
)
@without(
    ("deliver_turn", "IF v_error.blame IN ('busy', 'unavailable', 'schema', 'absent', 'rights') THEN", "IF false THEN")
)
def test_D5_an_operator_s_or_a_server_s_fault_is_no_attempt(bridge: Bridge, state: str) -> None:
    """However long replies cannot be inserted, none is given up, and once it is mended they are delivered."""
    _app_delivers(bridge, f"RAISE 'no' USING ERRCODE = '{state}';")
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    bridge.stop_clock()
    for _ in range(2 * MAX_ATTEMPTS):
        outcome = bridge.deliver(turn)
        assert (outcome.name, outcome.details.get("error")) == ("later", state)
        late = bridge.turn(turn)
        assert (late.state, late.attempts, late.draft, late.last_error) == ("typing", 0, "coucou", state)
        assert (late.due_at - bridge.value("SELECT bridge.now()")).total_seconds() == 5
        bridge.advance(5)
        assert bridge.store.due_deliveries(10, []) == [turn]
    _app_delivers(
        bridge, "INSERT INTO public.messages VALUES (p_message, p_match, p_bot, p_content, now()); RETURN p_message;"
    )
    assert bridge.deliver(turn).name == "answered"
    assert bridge.messages(match)[1] == (CAMILLE, "coucou")


@without(("diagnose", "p_state = '23514' AND p_constraint = '' AND p_table <> ''", "false"))
def test_D5_a_partition_that_is_missing_is_no_attempt(bridge: Bridge) -> None:
    """Replies wait for the operator to make it."""
    bridge.rows(f"CREATE TABLE parts (id uuid) PARTITION BY LIST (id); GRANT INSERT ON parts TO {OWNER}")
    _app_delivers(bridge, "INSERT INTO public.parts VALUES (p_message); RETURN p_message;")
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    assert (bridge.deliver(turn).name, bridge.turn(turn).attempts) == ("later", 0)
    bridge.rows("CREATE TABLE part PARTITION OF parts DEFAULT")
    assert bridge.deliver(turn).name == "answered"


@without(("deliver_turn", "WHEN lock_not_available OR deadlock_detected THEN", "WHEN division_by_zero THEN"))
def test_D5_a_collision_with_the_app_s_own_locks_is_no_attempt(bridge: Bridge) -> None:
    """A reply whose insertion meets a row that the app holds is delivered a second later, and the app goes on."""
    bridge.impatient()
    bridge.rows(COUNTER, connection=bridge.people)
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    app = bridge.session()
    bridge.rows("UPDATE counters SET messages = 0", connection=app)

    bridge.stop_clock()
    assert bridge.deliver(turn).name == "later"
    late = bridge.turn(turn)
    assert (late.state, late.attempts, late.draft) == ("typing", 0, "coucou")
    assert (late.due_at - bridge.value("SELECT bridge.now()")).total_seconds() == 1
    app.commit()
    assert bridge.deliver(turn).name == "answered"


@without(
    (
        "deliver_turn",
        "interval '1 second' WHERE id = t.id RETURNING due_at INTO t.due_at; PERFORM bridge.ring_due(t.id, t.due_at);",
        "interval '1 second' WHERE id = t.id;",
    )
)
def test_D5_a_reply_that_met_a_lock_tells_the_schedulers_when_it_is_due(bridge: Bridge) -> None:
    """A bell rings, or the second would be ended by a sweep of five."""
    bridge.impatient()
    bridge.rows(COUNTER, connection=bridge.people)
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    bridge.rows("UPDATE counters SET messages = 0", connection=bridge.session())
    bell = bridge.listen()

    assert bridge.deliver(turn).name == "later"
    assert bell.heard() == [("bridge_due", "")]


@without(
    (
        "deliver_turn",
        "PERFORM bridge.assert_read_committed();",
        """PERFORM FROM public.matches m
           WHERE m.id = (SELECT d.match_id FROM bridge.turns d WHERE d.id = p_turn) FOR UPDATE;""",
    ),
    ("sql", f"GRANT UPDATE ON matches TO {OWNER}"),
)
def test_D5_a_delivery_under_way_holds_no_message_up(bridge: Bridge) -> None:
    """While a reply is being inserted, the app writes in the same match at once."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    delivery = bridge.session(SERVICE)
    bridge.rows(DELIVER, turn, connection=delivery)
    bridge.execute(bridge.connect(), WRITE, str(uuid4()), match, LEA, "tu es là ?").result_at_once()
