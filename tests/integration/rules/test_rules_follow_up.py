"""Rule F3: one friendly message of the bot after a silence, and never beside a message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import uuid4

import psycopg2.errors
import pytest

from bridge_service.install.files import SQL_FOLDER
from bridge_service.turns import Kind
from tests.support.policy import set_policy
from tests.support.roles import SERVICE
from tests.support.rules import CAMILLE, LEA, WRITE, Bridge, without

if TYPE_CHECKING:
    from typing import Any

AFTER: Final = 3600
DELIVER: Final = "SELECT bridge.deliver_turn(%s)"
DELIVERS_WITHOUT_LOCK: Final = (
    "deliver_turn",
    "PERFORM FROM bridge.events WHERE kind = 'match' AND match_id = v_match FOR UPDATE;",
    "NULL;",
)


@pytest.fixture(autouse=True)
def _follows_up(bridge: Bridge) -> None:
    set_policy(bridge.urls, follow_up_after=AFTER)


def replied(bridge: Bridge, match: str, action: str = "say") -> int:
    """Let a person write and the bot answer, and return the reply."""
    bridge.write(match)
    claim = bridge.claimed(match)
    draft = "" if action == "silence" else "coucou"
    bridge.store.finish(claim.turn, claim.token, draft, pause=5, action=action)  # type: ignore[arg-type]
    bridge.advance(6)
    assert bridge.deliver(claim.turn).name == "answered"
    return claim.turn


def planned(bridge: Bridge, match: str) -> list[Any]:
    """Sweep, and return the follow-ups of a match."""
    bridge.store.plan_held()
    return bridge.turns(match, "follow_up")


def due(bridge: Bridge, match: str) -> int:
    """Wait until the follow-up of a match is made, and return it."""
    bridge.advance(AFTER + 1)
    return int(planned(bridge, match)[-1].id)


def typing(bridge: Bridge, match: str, turn: int | None = None) -> int:
    """Bring the follow-up of a match to where it only waits for `deliver`."""
    turn = turn or due(bridge, match)
    bridge.push()
    claim = bridge.claim(turn)
    assert claim.outcome.name == "claimed", claim.outcome
    assert bridge.finish(claim, "toujours là ?").name == "typing"
    bridge.advance(6)
    return turn


def ours(bridge: Bridge, match: str) -> list[str]:
    """Return what stands in the bot's name, oldest first."""
    return [text for sender, text in bridge.messages(match) if sender == CAMILLE]


def test_F3_a_silence_gets_a_follow_up_when_its_time_has_come_and_not_before(bridge: Bridge) -> None:
    """FOLLOW_UP_AFTER counts from the reply's delivery. The task tells the history, and nothing to answer."""
    bridge.stop_clock()
    match = bridge.match()
    replied(bridge, match)
    bridge.advance(AFTER - 1)
    assert planned(bridge, match) == []
    bridge.advance(1)
    [turn] = planned(bridge, match)
    assert [(push.turn_id, push.kind) for push in bridge.push()] == [(turn.id, Kind.FOLLOW_UP)]
    claim = bridge.claim(turn.id)
    task = claim.outcome.task
    assert task is not None
    assert (task.kind, task.messages, sorted(line.content for line in task.history)) == (
        Kind.FOLLOW_UP,
        (),
        ["coucou", "salut"],
    )
    bridge.finish(claim, "toujours là ?")
    bridge.advance(6)
    assert bridge.deliver(turn.id).name == "answered"
    assert ours(bridge, match) == ["coucou", "toujours là ?"]
    counted = bridge.value("SELECT bridge.verify(30, 10)")
    assert (counted["messages"], counted["answered"], counted["unaccounted"], counted["doubled"]) == (1, 1, 0, 0)
    bridge.write(match, "oui")
    assert bridge.deliver(bridge.typing(match)).name == "answered"


def test_F3_without_the_setting_nothing_is_noted(bridge: Bridge) -> None:
    """No reply is to be followed, and a setting that comes later does not reach back."""
    set_policy(bridge.urls, follow_up_after=0)
    match = bridge.match()
    reply = bridge.turn(replied(bridge, match))
    assert (reply.follow_up_after, reply.follow_up_at) == (None, None)
    set_policy(bridge.urls, follow_up_after=AFTER)
    bridge.advance(AFTER + 1)
    assert planned(bridge, match) == []


@without(
    ("sql", "DROP INDEX bridge.turns_one_follow_up"),
    ("plan_follow_ups", "ON CONFLICT (follows) WHERE kind = 'follow_up' DO NOTHING", ""),
)
def test_F3_a_reply_gets_one_follow_up_even_if_the_step_runs_twice(bridge: Bridge) -> None:
    """The unique index refuses the second one."""
    match = bridge.match()
    reply = replied(bridge, match)
    due(bridge, match)
    bridge.rows("UPDATE bridge.turns SET follow_up_at = bridge.now() WHERE id = %s", reply)
    assert len(planned(bridge, match)) == 1


@without(
    (
        "claim",
        "follow_up_after = CASE WHEN bridge.answers(kind) THEN v_policy.follow_up_after END",
        "follow_up_after = v_policy.follow_up_after",
    )
)
def test_F3_no_follow_up_follows_a_follow_up(bridge: Bridge) -> None:
    """Never two in a row; after the person's next message and its answer there may be another one."""
    match = bridge.match()
    replied(bridge, match)
    first = typing(bridge, match)
    assert bridge.deliver(first).name == "answered"
    assert bridge.turn(first).follow_up_at is None
    bridge.advance(AFTER + 1)
    assert len(planned(bridge, match)) == 1
    replied(bridge, match)
    assert due(bridge, match) != first


@pytest.mark.parametrize("before_the_turn", [False, True], ids=["after planning", "before planning"])
@without(DELIVERS_WITHOUT_LOCK)
def test_F3_a_follow_up_waits_for_a_message_under_way_and_is_cancelled(
    bridge: Bridge, *, before_the_turn: bool
) -> None:
    """An uncommitted message holds the follow-up up, whether its INSERT came before the turn existed or after."""
    match = bridge.match()
    replied(bridge, match)
    app = bridge.session()
    if before_the_turn:
        bridge.write(match, connection=app)
        turn = typing(bridge, match)
    else:
        turn = typing(bridge, match)
        bridge.write(match, connection=app)
    delivering = bridge.run(lambda store: store.deliver(turn))
    delivering.until_waiting()
    app.commit()
    outcome = delivering.result()
    assert (outcome.name, outcome.details["reason"]) == ("cancelled", "message")
    assert ours(bridge, match) == ["coucou"]


@without(
    (
        "before_message",
        "OR EXISTS (SELECT FROM bridge.turns f WHERE f.match_id = NEW.match_id AND f.follow_up_at IS NOT NULL)",
        "",
    )
)
@pytest.mark.parametrize("made", [False, True], ids=["to come", "made"])
def test_F3_a_message_holds_the_lock_from_the_reply_on(bridge: Bridge, *, made: bool) -> None:
    """A message of a conversation that may be followed up locks the match's event until it commits."""
    match = bridge.match()
    replied(bridge, match)
    if made:
        due(bridge, match)
    bridge.write(match, connection=bridge.session())
    with pytest.raises(psycopg2.errors.LockNotAvailable):
        bridge.rows("SELECT FROM bridge.events WHERE kind = 'match' FOR UPDATE NOWAIT")


@without(DELIVERS_WITHOUT_LOCK)
def test_F3_a_message_waits_for_a_follow_up_under_way_and_comes_after_it(bridge: Bridge) -> None:
    """No INSERT returns to the app while a follow-up is on its way into the same match."""
    match = bridge.match()
    replied(bridge, match)
    turn = typing(bridge, match)
    delivery = bridge.session(SERVICE)
    assert bridge.value(DELIVER, turn, connection=delivery)["outcome"] == "answered"
    writing = bridge.execute(bridge.connect(), WRITE, str(uuid4()), match, LEA, "me revoilà")
    writing.until_waiting()
    delivery.commit()
    writing.result()
    assert bridge.turn(turn).state == "answered"
    assert bridge.deliver(bridge.typing(match)).name == "answered"


@without(("deliver_turn", "IF bridge.went_on(t.follows) THEN", "IF false THEN"))
def test_F3_a_follow_up_looks_for_what_nobody_has_grouped_yet(bridge: Bridge) -> None:
    """The message committed, no scheduler saw it, and the app dates it before the reply."""
    match = bridge.match()
    replied(bridge, match)
    turn = typing(bridge, match)
    bridge.write(match)
    assert bridge.deliver(turn).name == "cancelled"
    assert ours(bridge, match) == ["coucou"]


@without(("speaks_first", "IN ('initiation', 'follow_up')", "= 'initiation'"))
@pytest.mark.parametrize("state", ["open", "queued", "composing", "typing"])
def test_F3_a_message_cancels_the_follow_up_wherever_it_stands(bridge: Bridge, state: str) -> None:
    """Grouping a message ends the unfinished follow-up, and the message is answered."""
    match = bridge.match()
    replied(bridge, match)
    turn = due(bridge, match)
    if state != "open":
        bridge.push()
    if state == "composing":
        assert bridge.claim(turn).outcome.name == "claimed"
    elif state == "typing":
        typing(bridge, match, turn)
    assert bridge.turn(turn).state == state
    bridge.write(match)
    bridge.group()
    ended = bridge.turn(turn)
    assert (ended.state, ended.reason, ended.draft, ended.follow_up_at) == ("cancelled", "message", None, None)
    assert bridge.deliver(bridge.typing(match)).name == "answered"


@without(("end_turn", "AND p_reason IS NULL AND t.action <> 'leave'", ""))
@pytest.mark.parametrize("action", ["leave", "silence"])
def test_F3_nothing_follows_a_goodbye_or_a_chosen_silence(bridge: Bridge, action: str) -> None:
    """The reply itself is never to be followed."""
    match = bridge.match()
    assert bridge.turn(replied(bridge, match, action)).follow_up_at is None


@without(("went_on", "o.ended_at > r.claimed_at", "false"))
def test_F3_a_silence_that_the_bot_chose_after_a_reply_ends_its_follow_up(bridge: Bridge) -> None:
    """The reply before the silence is not followed either."""
    match = bridge.match()
    replied(bridge, match)
    replied(bridge, match, "silence")
    bridge.advance(AFTER + 1)
    assert planned(bridge, match) == []


@without(("went_on", "(h.message_id = v_last) IS NOT FALSE", "true"), ("went_on", "o.ended_at > r.claimed_at", "false"))
def test_F3_nothing_follows_what_a_human_wrote_last(bridge: Bridge) -> None:
    """A human spoke for the bot after the reply: the bot does not come back by itself after the pause."""
    match = bridge.match()
    replied(bridge, match)
    bridge.rows(
        "INSERT INTO messages (id, match_id, sender_id, content, created_at) VALUES (%s, %s, %s, 'moi', bridge.now())",
        *(str(uuid4()), match, CAMILLE),
    )
    bridge.group()
    bridge.advance(4 * AFTER)
    assert planned(bridge, match) == []


@without(("went_on", "(h.message_id = v_last) IS NOT FALSE", "true"))
def test_F3_what_the_bridge_did_not_capture_counts_too(bridge: Bridge) -> None:
    """With TAKEOVER_PAUSE=0 a human's message is no event; the app's table shows it."""
    set_policy(bridge.urls, takeover_pause=0)
    match = bridge.match()
    replied(bridge, match)
    turn = typing(bridge, match)
    bridge.rows(
        "INSERT INTO messages (id, match_id, sender_id, content, created_at) VALUES (%s, %s, %s, 'moi', bridge.now())",
        *(str(uuid4()), match, CAMILLE),
    )
    assert bridge.deliver(turn).name == "cancelled"


@without(
    ("push_due", "v_awake := bridge.hold_due(v_now, p_limit);", ""), ("claim", "v_held := bridge.hold_turn(t.id);", "")
)
def test_F3_a_follow_up_waits_for_the_end_of_quiet_hours(bridge: Bridge) -> None:
    """Its time comes in the night; it is held, and said in the morning."""
    set_policy(bridge.urls, ignore_older_days=0, quiet_hours="22:30-07:00", timezone="Europe/Paris")
    bridge.rows("UPDATE bridge_test.clock SET stopped = '2027-06-15 22:00+02', ahead = '0'")
    match = bridge.match()
    replied(bridge, match)
    turn = due(bridge, match)
    assert bridge.push() == []
    assert (bridge.turn(turn).state, bridge.turn(turn).held) == ("open", "hours")
    bridge.rows("UPDATE bridge_test.clock SET stopped = '2027-06-16 07:10+02'")
    bridge.push()
    bridge.advance(300)
    assert bridge.deliver(typing(bridge, match, turn)).name == "answered"


def test_F3_a_paused_bot_follows_nothing_up_and_one_that_is_off_never_does(bridge: Bridge) -> None:
    """A follow-up is held while its conversation is paused, and ends as `off` when the bot or the setting is off."""
    paused, off, unset = bridge.match(), bridge.match(), bridge.match()
    for match in (paused, off, unset):
        replied(bridge, match)
    turns = [due(bridge, match) for match in (paused, off, unset)]
    bridge.push()
    bridge.rows("SELECT bridge.pause(%s, NULL)", paused)
    assert bridge.claim(turns[0]).outcome.name == "held"
    set_policy(bridge.urls, follow_up_after=0)
    assert bridge.claim(turns[1]).outcome.details["reason"] == "off"
    set_policy(bridge.urls, follow_up_after=AFTER, active=False)
    assert bridge.claim(turns[2]).outcome.details["reason"] == "off"


@without(("plan_follow_ups", "IF v_at <= v_now THEN", "IF true THEN"))
def test_F3_a_longer_time_puts_off_and_no_time_ends_what_is_to_come(bridge: Bridge) -> None:
    """The setting of the moment at which the follow-up is made rules."""
    match, other = bridge.match(), bridge.match()
    reply, ended = replied(bridge, match), replied(bridge, other)
    bridge.advance(AFTER)
    set_policy(bridge.urls, follow_up_after=2 * AFTER)
    assert planned(bridge, match) == []
    assert (bridge.turn(reply).follow_up_at - bridge.turn(reply).ended_at).total_seconds() == 2 * AFTER
    set_policy(bridge.urls, follow_up_after=0)
    bridge.advance(AFTER + 1)
    assert planned(bridge, other) == []
    assert bridge.turn(ended).follow_up_at is None


@without(("resting", "OR r.follows IS NOT NULL", ""))
def test_F3_a_follow_up_counts_as_a_reply_of_the_hour(bridge: Bridge) -> None:
    """With LIMIT_REPLIES_HOUR=1 the next message waits for an hour."""
    match = bridge.match()
    replied(bridge, match)
    assert bridge.deliver(typing(bridge, match)).name == "answered"
    set_policy(bridge.urls, limit_replies_hour=1)
    bridge.write(match)
    assert bridge.claim(bridge.pushed(match)).outcome.details.get("cause") == "limit_replies"


@without(("known_lines", "AND f.kind = 'follow_up'", "AND false"))
def test_F3_a_follow_up_is_the_bridge_s_own_line(bridge: Bridge) -> None:
    """`replay` does not take it for a human's answer to what was written before it."""
    match = bridge.match()
    replied(bridge, match)
    assert bridge.deliver(typing(bridge, match)).name == "answered"
    assert bridge.value("SELECT bridge.answered_until(%s, %s)", match, LEA) is None


@without(("plan_follow_ups", "v_at := v_now + interval '1 minute';", "RAISE;"))
def test_F3_an_error_of_the_app_s_tables_puts_one_conversation_off(bridge: Bridge) -> None:
    """The others get their follow-ups, and held turns are planned."""
    broken, match = bridge.match(), bridge.match()
    reply = replied(bridge, broken)
    replied(bridge, match)
    bridge.rows("UPDATE bridge.turns SET follow_up_at = follow_up_at - interval '1 minute' WHERE id = %s", reply)
    bridge.rows(
        "CREATE OR REPLACE FUNCTION bridge.history(p_match uuid, p_covered uuid[], p_lines integer)"
        " RETURNS TABLE (message_id uuid, sender_id uuid, content text, created_at timestamptz, covered boolean)"
        " LANGUAGE plpgsql STABLE AS $$ BEGIN ASSERT p_match <> %s; RETURN QUERY"
        " SELECT m.id, m.sender_id, m.content, m.created_at, false FROM public.messages m"
        " WHERE m.match_id = p_match ORDER BY m.created_at DESC LIMIT 1; END $$",
        broken,
    )
    bridge.advance(AFTER + 1)
    assert len(planned(bridge, match)) == 1
    assert planned(bridge, broken) == []
    assert bridge.turn(reply).follow_up_at > bridge.value("SELECT bridge.now()")


@without(("prune", "AND t.follow_up_at IS NULL", ""))
def test_F3_retention_keeps_a_reply_that_is_to_be_followed(bridge: Bridge) -> None:
    """A retention shorter than FOLLOW_UP_AFTER does not lose the follow-up, and a follow-up stays (A3)."""
    match = bridge.match()
    replied(bridge, match)
    bridge.advance(AFTER + 1)
    bridge.rows("SELECT bridge.prune(0.0001, 100)")
    [made] = planned(bridge, match)
    turn = typing(bridge, match, made.id)
    assert bridge.deliver(turn).name == "answered"
    bridge.advance(1000)
    bridge.rows("SELECT bridge.prune(0.0001, 100)")
    assert bridge.turns(match) == []
    assert len(bridge.turns(match, "follow_up")) == 1


def test_F3_a_database_with_turns_in_every_place_is_upgraded(bridge: Bridge) -> None:
    """What was under way before the migration ends as before, without a follow-up; what is claimed after it has one."""
    set_policy(bridge.urls, follow_up_after=0)
    opener = bridge.match(opener=True)
    bridge.group()
    old, new = bridge.match(), bridge.match()
    bridge.write(old)
    turn = bridge.typing(old)
    bridge.write(new)
    queued = bridge.pushed(new)
    bridge.rows(
        "DROP INDEX bridge.turns_speaking_first; DROP INDEX bridge.turns_due_opener;"
        " CREATE INDEX turns_due_opener ON bridge.turns (due_at) WHERE kind = 'initiation' AND state = 'open';"
        " ALTER TABLE bridge.turns DROP COLUMN follow_up_after, DROP COLUMN follow_up_at, DROP COLUMN follows"
    )
    bridge.rows((SQL_FOLDER / "migrations" / "0029_follow_ups.sql").read_text(encoding="utf-8"))
    set_policy(bridge.urls, follow_up_after=AFTER)
    assert bridge.deliver(turn).name == "answered"
    claim = bridge.claim(queued)
    bridge.finish(claim)
    bridge.advance(6)
    assert bridge.deliver(queued).name == "answered"
    bridge.advance(AFTER + 1)
    assert (planned(bridge, old), len(planned(bridge, new))) == ([], 1)
    bridge.push()
    assert bridge.opener(opener).state == "queued"
