"""What a failure costs: a time before which nothing is tried again, and no silent end that a repair could answer."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest

from bridge_service.errors import DatabaseRefused, RightMissing
from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import Ledger
from tests.support.policy import MAX_ATTEMPTS
from tests.support.roles import ADMIN, OWNER
from tests.support.rules import CAMILLE, LEA, without

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.machine.answers import Outcome
    from tests.support.rules import Bridge, Claim


@pytest.fixture
def ledger(bridge: Bridge) -> Iterator[Ledger]:
    """Give the operator's hands."""
    with closing(Connection(bridge.urls.service, application="operator")) as connection:
        yield Ledger(connection)


def told(outcome: Outcome) -> tuple[list[str], list[str]]:
    """Return the texts of a claimed task: those to answer, and the history."""
    assert outcome.task is not None, outcome
    return [line.content for line in outcome.task.messages], [line.content for line in outcome.task.history]


def composing(bridge: Bridge, text: str = "un") -> tuple[str, Claim]:
    """Give a match, and its turn that a worker composes while the clock stands still."""
    bridge.stop_clock()
    match = bridge.match()
    bridge.write(match, text)
    return match, bridge.claimed(match)


def due_in(bridge: Bridge, turn: int) -> float:
    """Seconds until a turn is due."""
    return float((bridge.turn(turn).due_at - bridge.value("SELECT bridge.now()")).total_seconds())


# Rule T5: a turn that failed is not claimed before its `retry_at`, by any push


@without(("claim", "IF t.retry_at > bridge.now() THEN", "IF false THEN"))
@pytest.mark.parametrize("counts", [False, True], ids=["away", "failed"])
def test_T5_no_push_brings_a_turn_back_before_its_retry(bridge: Bridge, *, counts: bool) -> None:
    """Doubled and forged pushes find nothing for 30 s, and when these are over the turn is pushed and claimed."""
    _, claim = composing(bridge)
    bridge.store.fail(claim.turn, claim.token, "429", retry=30, counts=counts)

    for _ in range(5):
        assert bridge.claim(claim.turn).outcome.details == {"outcome": "nothing", "state": "composing", "early": True}
        bridge.advance(5.9)
    bridge.advance(0.5)
    assert [push.turn_id for push in bridge.push()] == [claim.turn]
    assert bridge.claim(claim.turn).outcome.name == "claimed"


@without(("deliver_turn", "OR t.retry_at > bridge.now()", ""))
def test_T5_pushes_that_come_five_times_are_one_attempt_of_a_delivery(bridge: Bridge) -> None:
    """A draft that could not be inserted waits its seconds, however often its push comes."""
    bridge.stop_clock()
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    bridge.rows("ALTER TABLE messages ADD lang text; UPDATE messages SET lang = 'fr'")
    bridge.rows("ALTER TABLE messages ALTER lang SET NOT NULL")
    assert bridge.deliver(turn).name == "failed"
    for _ in range(MAX_ATTEMPTS):
        assert bridge.deliver(turn).name == "nothing"
    assert (bridge.turn(turn).state, bridge.turn(turn).attempts) == ("typing", 1)


@without(("unreadable", "AND (retry_at > bridge.now()) IS NOT TRUE", ""))
def test_T5_what_cannot_be_read_is_no_attempt_before_its_retry(bridge: Bridge) -> None:
    """A push that was made before the failure and arrives after it counts nothing."""
    bridge.stop_clock()
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match)
    assert bridge.store.unreadable(turn, "compose", "no").name == "failed"
    bridge.rows("UPDATE bridge.turns SET pushes = 1 WHERE id = %s", turn)
    assert bridge.store.unreadable(turn, "compose", "no").name == "nothing"
    assert bridge.turn(turn).attempts == 1


@without(("reset_pushes", "greatest(v_now, t.retry_at)", "v_now"))
def test_T5_redis_that_is_back_brings_no_retry_forward(bridge: Bridge) -> None:
    """All pushes are made again then, and a turn whose time has not come is pushed at its time."""
    _, claim = composing(bridge)
    bridge.store.fail(claim.turn, claim.token, "429", retry=30, counts=False)
    bridge.rows("UPDATE bridge.turns SET pushes = 1, due_at = due_at + interval '5 s' WHERE id = %s", claim.turn)
    bridge.store.reset_pushes()
    assert due_in(bridge, claim.turn) == 30


@without(("fail", "retry_at = v_now + make_interval(secs => v_pause), ", ""))
def test_T5_the_schedulers_look_again_at_the_retry(bridge: Bridge) -> None:
    """`next_due` is the time at which the turn may be claimed, and a push before it is refused by the table itself."""
    _, claim = composing(bridge)
    bridge.store.fail(claim.turn, claim.token, "429", retry=4, counts=False)
    turn = bridge.turn(claim.turn)
    assert bridge.store.next_due().flush_at == turn.retry_at
    assert due_in(bridge, claim.turn) == 4


def test_T5_a_worker_that_drains_or_dies_puts_nothing_off(bridge: Bridge) -> None:
    """Its turns are claimed as soon as they are given back, or their lease has run out."""
    _, claim = composing(bridge)
    assert bridge.store.release({claim.turn: claim.token}) == 1
    again = bridge.claim(claim.turn)
    assert again.outcome.name == "claimed"
    bridge.advance(16)
    bridge.push()
    assert bridge.turn(claim.turn).retry_at is None
    assert bridge.claim(claim.turn).outcome.name == "claimed"


@without(
    ("next_turn", "AND (t.retry_at > bridge.now()) IS NOT TRUE", ""),
    ("end_turn", "greatest(v_now, t.retry_at)", "v_now"),
    ("sql", "ALTER TABLE bridge.turns DROP CONSTRAINT turns_sound"),
)
def test_T5_the_end_of_the_active_turn_brings_no_retry_forward(bridge: Bridge) -> None:
    """A waiting turn that inherited a time is neither gone on with nor woken before it (T7)."""
    match, claim = composing(bridge)
    assert bridge.finish(claim, pause=16).name == "typing"
    bridge.write(match, "deux")
    waiting = bridge.pushed(match)
    later = "UPDATE bridge.turns SET retry_at = bridge.now() + interval '3 s', due_at = bridge.now() + interval '3 s'"
    bridge.rows(f"{later} WHERE id = %s", waiting)
    ended = bridge.deliver(claim.turn, max_merges=0)
    assert (ended.name, ended.next_turn) == ("answered", None)
    assert due_in(bridge, waiting) == 3


# Rules E1, E4: a retry takes newer messages along or leaves them out


@without(("claim", "v_waiting := bridge.newer_turn(t.id);", "v_waiting := NULL;"))
@pytest.mark.parametrize("how", ["failed", "away", "drained", "lost"])
def test_E1_a_turn_that_is_claimed_again_makes_way_for_the_newer_one(bridge: Bridge, how: str) -> None:
    """However its first call ended, no second call is made without the message that has come meanwhile."""
    match, claim = composing(bridge)
    if how == "drained":
        bridge.store.release({claim.turn: claim.token})
    elif how != "lost":
        bridge.store.fail(claim.turn, claim.token, "no", retry=1, counts=how == "failed")
    bridge.write(match, "deux")
    bridge.group()
    bridge.advance(16)
    bridge.push()

    outcome = bridge.claim(claim.turn).outcome
    assert (outcome.name, outcome.details["merges"]) == ("superseded", 0)
    waiting = outcome.next_turn
    assert waiting is not None
    again = bridge.claim(waiting)
    assert told(again.outcome) == (["un", "deux"], [])
    assert bridge.turn(waiting).attempts == (how == "failed")
    assert bridge.finish(again, pause=0).name == "answered"
    assert [sender for sender, _ in bridge.messages(match)].count(CAMILLE) == 1


@without(("may_supersede", "t.token IS NULL THEN v_most > 0", "t.token IS NULL THEN true"))
def test_E1_where_nothing_is_merged_a_retry_composes_for_its_own_messages(bridge: Bridge) -> None:
    """With MAX_MERGES 0 the newer message is answered next."""
    match, claim = composing(bridge)
    bridge.store.release({claim.turn: claim.token})
    bridge.write(match, "deux")
    bridge.group()
    with bridge.policy(max_merges=0):
        again = bridge.store.claim(claim.turn, claim.token)
    assert told(again) == (["un"], [])


@without(("may_supersede", "WHEN t.attempts + 1 >= bridge.max_attempts() THEN false", ""))
def test_E1_the_last_attempt_of_a_turn_is_its_own(bridge: Bridge) -> None:
    """What kills a turn does not kill the message that came after it."""
    match, claim = composing(bridge)
    bridge.rows("UPDATE bridge.turns SET attempts = %s WHERE id = %s", MAX_ATTEMPTS - 1, claim.turn)
    bridge.store.release({claim.turn: claim.token})
    bridge.write(match, "deux")
    bridge.group()
    again = bridge.claim(claim.turn)
    assert told(again.outcome) == (["un"], [])
    assert bridge.store.fail(again.turn, again.token, "no", retry=1, counts=True).name == "dead"
    waiting = bridge.pushed(match)
    assert told(bridge.claim(waiting).outcome)[0] == ["deux"]


@without(
    (
        "supersede",
        """attempts = greatest(newer.attempts, older.attempts), takeovers = greatest(newer.takeovers, older.takeovers),
           last_error = coalesce(older.last_error, newer.last_error), refused = coalesce(older.refused, newer.refused),
           retry_at = greatest(newer.retry_at, older.retry_at),
           due_at = greatest(newer.due_at, newer.retry_at, older.retry_at)""",
        "attempts = newer.attempts",
    )
)
def test_E4_a_newer_message_makes_no_failure_forgotten(bridge: Bridge) -> None:
    """The waiting turn inherits attempts, takeovers, error, refusal, and the time before which nothing is tried."""
    match, claim = composing(bridge)
    bridge.write(match, "deux")
    bridge.group()
    bridge.rows(
        "UPDATE bridge.turns SET attempts = 2, takeovers = 7, last_error = 'no', refused = '22001', token = NULL,"
        " retry_at = bridge.now() + interval '60 s', due_at = bridge.now() + interval '60 s' WHERE id = %s",
        claim.turn,
    )
    [_, newer] = bridge.turns(match)
    bridge.rows("SELECT bridge.supersede(%s, %s)", claim.turn, newer.id)
    heir = bridge.turn(newer.id)
    assert (heir.attempts, heir.takeovers, heir.last_error, heir.refused) == (2, 7, "no", "22001")
    assert (heir.merges, due_in(bridge, heir.id), heir.retry_at) == (0, 60, heir.due_at)


@without(("task", "THEN bridge.later_messages(t.id, t.match_id) ELSE '{}' END", "THEN '{}'::uuid[] ELSE '{}' END"))
@pytest.mark.parametrize("grouped", [True, False], ids=["waiting", "not grouped"])
def test_E1_what_a_later_turn_answers_is_no_history(bridge: Bridge, *, grouped: bool) -> None:
    """A message is read once: as history it would be answered, or thrown away, before its own turn comes."""
    match, claim = composing(bridge)
    bridge.store.release({claim.turn: claim.token})
    later = bridge.write(match, "deux")
    scheduler = bridge.session(ADMIN)
    if grouped:
        bridge.group()
    else:
        bridge.rows(
            "SELECT FROM bridge.events WHERE message_id = %s FOR NO KEY UPDATE", later, connection=scheduler
        )  # fmt: skip
    with bridge.policy(max_merges=0):
        again = bridge.store.claim(claim.turn, claim.token)
    assert told(again) == (["un"], [])
    scheduler.rollback()
    with bridge.policy(max_merges=0):
        bridge.store.finish(claim.turn, claim.token, "coucou", pause=0)
    next_turn = bridge.claim(bridge.pushed(match))
    assert told(next_turn.outcome) == (["deux"], ["un", "coucou"])


def test_E1_later_messages_take_no_line_of_the_history(bridge: Bridge) -> None:
    """A claim with two lines of history is told the last two that were said before its group."""
    match, claim = composing(bridge, "avant")
    assert bridge.finish(claim, pause=0).name == "answered"
    bridge.write(match, "un")
    claim = bridge.claimed(match)
    bridge.store.release({claim.turn: claim.token})
    for number in range(5):
        bridge.write(match, f"plus tard {number}")
    bridge.group()
    with bridge.policy(max_merges=0):
        again = bridge.store.claim(claim.turn, claim.token, lines=2)
    assert told(again) == (["un"], ["avant", "coucou"])


# Rule D5: nothing ends silently that a repair could answer

USERS: Final = """
    CREATE TABLE users (id uuid PRIMARY KEY);
    INSERT INTO users SELECT id FROM profiles WHERE NOT is_bot;
    CREATE TABLE log (sender uuid REFERENCES users);
    GRANT INSERT ON log TO PUBLIC;
"""
REFERENCES: Final = "ALTER TABLE messages ADD CONSTRAINT messages_users_fkey FOREIGN KEY (sender_id) REFERENCES users"
LOGS: Final = """
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO public.log VALUES (NEW.sender_id); RETURN NEW; END $$;
    CREATE TRIGGER note AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION note()
"""


@without(
    ("deliver_turn", "v_state = '23503' AND bridge.is_gone(t.match_id, t.bot_id, v_messages)", "v_state = '23503'")
)
@pytest.mark.parametrize("opener", [False, True], ids=["reply", "opener"])
@pytest.mark.parametrize(
    ("constraint", "named"),
    [
        (REFERENCES, "23503 messages_users_fkey (table public.messages)"),
        (f"{REFERENCES} DEFERRABLE INITIALLY DEFERRED", "23503 messages_users_fkey (table public.messages)"),
        (LOGS, "23503 log_sender_fkey (table public.log)"),
    ],
    ids=["column", "deferred", "trigger"],
)
def test_D5_a_bot_that_lacks_a_row_is_no_conversation_that_is_gone(
    bridge: Bridge, ledger: Ledger, constraint: str, named: str, *, opener: bool
) -> None:
    """The turn dies with the constraint's name, and `dead retry` has it answered once the row is there."""
    bridge.stop_clock()
    bridge.rows(USERS)
    bridge.rows(constraint)
    match = bridge.match(opener=opener)
    if not opener:
        bridge.write(match)
    turn = bridge.typing_opener(match) if opener else bridge.typing(match)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        outcome = bridge.deliver(turn)
        assert (outcome.name, outcome.details.get("named")) == ("failed" if attempt < MAX_ATTEMPTS else "dead", named)
        bridge.advance(2**attempt)
    assert (bridge.turn(turn).state, bridge.turn(turn).last_error) == ("dead", named)

    bridge.rows("INSERT INTO users VALUES (%s)", CAMILLE)
    again = ledger.retry(turn)
    assert again.outcome == "retried"
    bridge.push()
    assert bridge.finish(bridge.claim(again.turn_id or 0), pause=0).name in {"answered", "typing"}
    if opener:
        assert bridge.deliver(turn).name == "answered"
    assert bridge.messages(match)[-1] == (CAMILLE, "coucou")


def test_D5_an_opener_that_the_table_refuses_is_composed_again(bridge: Bridge) -> None:
    """It is told why, as a reply is, and the match has one opener."""
    bridge.stop_clock()
    bridge.rows("DROP TRIGGER bridge_after_edit ON messages; ALTER TABLE messages ALTER content TYPE varchar(10)")
    match = bridge.match(opener=True)
    turn = bridge.typing_opener(match, "bonjour, je m'appelle Camille")
    assert bridge.deliver(turn).name == "failed"
    bridge.advance(1)
    claim = bridge.claim(turn)
    assert claim.outcome.task is not None
    assert claim.outcome.task.refused == "22001 character varying(10)"
    assert bridge.finish(claim, "bonjour", pause=0).name == "typing"
    assert bridge.deliver(turn).name == "answered"
    assert bridge.messages(match) == [(CAMILLE, "bonjour")]


@without(("cancel_turn", "IF p_reason = 'gone' THEN", "IF false THEN"))
@pytest.mark.parametrize("table", ["matches", "profiles", "messages"])
@pytest.mark.parametrize("step", ["claim", "deliver"])
def test_D5_what_row_level_security_hides_is_not_gone(bridge: Bridge, table: str, step: str) -> None:
    """The step raises as for a missing right, nothing is counted, and once the policy is there the turn is answered."""
    bridge.stop_clock()
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match) if step == "claim" else bridge.typing(match)
    bridge.rows(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    with pytest.raises(RightMissing):
        bridge.claim(turn) if step == "claim" else bridge.deliver(turn)
    assert (bridge.turn(turn).state, bridge.turn(turn).attempts) == ("queued" if step == "claim" else "typing", 0)

    bridge.rows(f"CREATE POLICY bridge ON {table} TO {OWNER} USING (true) WITH CHECK (true)")
    outcome = bridge.finish(bridge.claim(turn), pause=0) if step == "claim" else bridge.deliver(turn)
    assert outcome.name == "answered"


def test_D5_what_a_policy_may_hide_is_an_attempt(bridge: Bridge, ledger: Ledger) -> None:
    """Where policies decide row by row, the turn dies in the end, and `dead retry` brings it back."""
    bridge.stop_clock()
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match)
    bridge.rows("ALTER TABLE matches ENABLE ROW LEVEL SECURITY")
    bridge.rows(f"CREATE POLICY bridge ON matches TO {OWNER} USING (user1_id <> '{LEA}')")
    for attempt in range(1, MAX_ATTEMPTS + 1):
        with pytest.raises(DatabaseRefused, match="P0002"):
            bridge.claim(turn)
        bridge.store.unreadable(turn, "compose", "P0002")
        bridge.advance(21)
        bridge.push()
        assert bridge.turn(turn).attempts == attempt
    assert bridge.turn(turn).state == "dead"
    bridge.rows("ALTER TABLE matches DISABLE ROW LEVEL SECURITY")
    again = ledger.retry(turn)
    bridge.push()
    assert bridge.finish(bridge.claim(again.turn_id or 0), pause=0).name == "answered"


@without(("retry_dead", "(t.state = 'cancelled' AND t.reason IN ('gone', 'refused')", "(false"))
@pytest.mark.parametrize("reason", ["gone", "refused"])
def test_D5_the_operator_may_retry_what_was_gone_or_refused(bridge: Bridge, ledger: Ledger, reason: str) -> None:
    """When the bot is a bot again, or the app's trigger mended, `dead retry` has the turn answered; once."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    if reason == "gone":
        bridge.rows("UPDATE profiles SET is_bot = false WHERE id = %s", CAMILLE)
    else:
        bridge.rows("CREATE FUNCTION drop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$")
        bridge.rows("CREATE TRIGGER drop BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION drop()")
    assert bridge.deliver(turn).details.get("reason") == reason
    bridge.rows("UPDATE profiles SET is_bot = true WHERE id = %s; DROP TRIGGER IF EXISTS drop ON messages", CAMILLE)

    again = ledger.retry(turn)
    assert (again.outcome, ledger.retry(turn).outcome) == ("retried", "nothing")
    bridge.push()
    assert bridge.finish(bridge.claim(again.turn_id or 0), pause=0).name == "answered"
    assert bridge.messages(match)[-1] == (CAMILLE, "coucou")


def test_D5_a_retry_before_the_repair_is_dead_or_gone_again(bridge: Bridge, ledger: Ledger) -> None:
    """A turn whose match is still away ends as `gone` once more."""
    match = bridge.match()
    message = bridge.write(match)
    turn = bridge.pushed(match)
    bridge.rows("DELETE FROM messages WHERE id = %s", message)
    assert bridge.claim(turn).outcome.details["reason"] == "gone"
    again = ledger.retry(turn)
    bridge.push()
    assert bridge.store.claim(again.turn_id or 0, uuid4()).details["reason"] == "gone"
