from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest

from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import Ledger
from tests.support.policy import MAX_ATTEMPTS
from tests.support.roles import ADMIN, SERVICE
from tests.support.rules import CAMILLE, GROUPING_DELAY, HUGO, LEA, WRITE, Bridge, without

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY: Final = 86_400.0
RETENTION_DAYS: Final = 30.0


@pytest.fixture
def ledger(bridge: Bridge) -> Iterator[Ledger]:
    """Give the operator's hands."""
    with closing(Connection(bridge.urls.service, application="operator")) as connection:
        yield Ledger(connection)


def _die(bridge: Bridge, match: str) -> int:
    """Let the responder fail at a match's turn until it is dead; return the turn."""
    turn = bridge.pushed(match)
    for _ in range(MAX_ATTEMPTS):
        claim = bridge.claim(turn)
        assert claim.outcome.name == "claimed"
        outcome = bridge.store.fail(turn, claim.token, "ValueError", retry=0, counts=True)
    assert outcome.name == "dead"
    return turn


def _dead_opener(bridge: Bridge, match: str) -> int:
    bridge.group()
    bridge.advance(61)
    bridge.push()
    turn = int(bridge.opener(match).id)
    for _ in range(MAX_ATTEMPTS):
        claim = bridge.claim(turn)
        bridge.store.fail(turn, claim.token, "ValueError", retry=0, counts=True)
    assert bridge.turn(turn).state == "dead"
    return turn


# Rule A1: away is not wrong


@without(("fail", "ELSIF p_counts THEN", "ELSIF true THEN"))
def test_A1_a_responder_that_is_away_kills_no_turn(bridge: Bridge) -> None:
    """However often a responder was not to be had, its turn goes on and is answered when it is back."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match)
    for _ in range(3 * MAX_ATTEMPTS):
        claim = bridge.claim(turn)
        outcome = bridge.store.fail(turn, claim.token, "ConnectError", retry=30, counts=False)
        assert outcome.name == "failed"
        bridge.advance(61)
        assert [push.turn_id for push in bridge.push()] == [turn]
    assert bridge.turn(turn).attempts == 0
    claim = bridge.claim(turn)
    assert bridge.finish(claim, pause=0).name == "answered"


@without(("fail", "least(60, extract(epoch FROM v_now - t.queued_at) / 4)", "0"))
def test_A1_a_responder_that_is_away_is_asked_less_and_less(bridge: Bridge) -> None:
    """After a quarter of what the turn has waited, a minute at most, and never before the time that was asked for."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match)

    def pause_after(waited: float, retry: float = 5) -> float:
        bridge.rows("UPDATE bridge.turns SET queued_at = bridge.now() - make_interval(secs => %s)", waited)
        bridge.rows("UPDATE bridge.turns SET retry_at = NULL")
        claim = bridge.claim(turn)
        outcome = bridge.store.fail(turn, claim.token, "ConnectError", retry=retry, counts=False)
        due = bridge.value("SELECT extract(epoch FROM due_at - bridge.now())::float8 FROM bridge.turns")
        pause = float(outcome.details["retry"])
        assert pause - 1 < due <= pause + 0.1
        return pause

    assert pause_after(0) == 5.0
    assert pause_after(20) == 5.0
    assert 7.5 <= pause_after(40) <= 10.1
    assert 22.5 <= pause_after(120) <= 30.1
    assert 45 <= pause_after(240) <= 60
    assert 45 <= pause_after(86_400) <= 60
    assert pause_after(86_400, retry=60) == 60.0
    assert pause_after(40, retry=30) == 30.0


@without(("fail", "* (1 - bridge.draw(t.match_id, 'away') / 4)", ""))
def test_A1_turns_that_failed_together_do_not_come_together(bridge: Bridge) -> None:
    """A hundred that have waited equally long are due at many different times."""
    for _ in range(100):
        bridge.write(bridge.match())
    bridge.group()
    bridge.advance(GROUPING_DELAY + 1)
    turns = [push.turn_id for push in bridge.push()]
    bridge.advance(200)
    pauses = set()
    for turn in turns:
        claim = bridge.claim(turn)
        bridge.rows("UPDATE bridge.turns SET queued_at = bridge.now() - interval '300 s' WHERE id = %s", turn)
        outcome = bridge.store.fail(turn, claim.token, "ConnectError", retry=5, counts=False)
        pauses.add(outcome.details["retry"])
    assert len(turns) == 100
    assert len(pauses) > 20
    assert max(pauses) - min(pauses) > 5


@without(("count_failure", "IF t.attempts >= bridge.max_attempts() THEN", "IF false THEN"))
def test_A1_a_responder_that_is_wrong_ends_its_turn(bridge: Bridge) -> None:
    """An error that comes MAX_ATTEMPTS times makes the turn dead, and the conversation's next one goes on."""
    match = bridge.match()
    bridge.write(match)
    turn = _die(bridge, match)
    assert bridge.turn(turn).last_error == "ValueError"
    bridge.write(match)
    assert bridge.deliver(bridge.typing(match)).name == "answered"


@without(
    ("unreadable", "AND (retry_at > bridge.now()) IS NOT TRUE", ""),
    ("unreadable", "THEN pushes > 0 AND", "THEN"),
)
def test_A1_what_cannot_be_read_is_counted_once_a_push(bridge: Bridge) -> None:
    """Two workers refused at the same time, and a call that is repeated, are one attempt; the next push is another."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match)
    holder = bridge.session(ADMIN)
    bridge.rows("SELECT FROM bridge.turns WHERE id = %s FOR UPDATE", turn, connection=holder)
    calls = [bridge.run(lambda store: store.unreadable(turn, "compose", "no")) for _ in range(2)]
    for call in calls:
        call.until_waiting()
    holder.commit()
    assert sorted(call.result().name for call in calls) == ["failed", "nothing"]
    assert bridge.store.unreadable(turn, "compose", "no").name == "nothing"
    assert bridge.turn(turn).attempts == 1

    for attempt in range(2, MAX_ATTEMPTS + 1):
        bridge.advance(2**attempt)
        assert [push.turn_id for push in bridge.push()] == [turn]
        outcome = bridge.store.unreadable(turn, "compose", "no")
        assert outcome.details["attempts"] == attempt
    assert (outcome.name, bridge.turn(turn).last_error) == ("dead", "no")
    assert bridge.store.unreadable(turn, "compose", "no").name == "nothing"


@without(("unreadable", "AND token IS NULL", ""))
def test_A1_what_another_worker_reads_is_not_counted(bridge: Bridge) -> None:
    """Whoever was refused and wakes up late counts nothing of a turn that is composed by then, or typed."""
    match = bridge.match()
    bridge.write(match)
    claim = bridge.claimed(match)
    # As after a push that came twice: the claim that went well has cleared the count, and the push is still on its way.
    bridge.rows("UPDATE bridge.turns SET pushes = 1 WHERE id = %s", claim.turn)
    assert bridge.store.unreadable(claim.turn, "compose", "no").name == "nothing"
    assert bridge.finish(claim).name == "typing"
    bridge.advance(6)
    bridge.push()
    assert bridge.store.unreadable(claim.turn, "compose", "no").name == "nothing"
    assert bridge.deliver(claim.turn).name == "answered"
    assert bridge.turn(claim.turn).attempts == 0


@without(("unreadable", "UPDATE bridge.turns SET state = 'composing' WHERE id = t.id;", "NULL;"))
def test_A1_what_is_written_meanwhile_does_not_share_the_end_of_what_cannot_be_read(bridge: Bridge) -> None:
    """It opens a turn of its own, which is woken when the other one is dead."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match)
    bridge.store.unreadable(turn, "compose", "no")
    later = bridge.write(match, "tu es là ?")
    for _ in range(1, MAX_ATTEMPTS):
        bridge.group()
        bridge.advance(20)
        bridge.push()
        outcome = bridge.store.unreadable(turn, "compose", "no")
    waiting = bridge.turns(match)[-1].id
    assert (outcome.name, outcome.next_turn) == ("dead", waiting)
    assert bridge.covered(waiting) == [later]
    assert bridge.finish(bridge.claim(waiting), pause=0).name == "answered"


@without(("unreadable", "EXCEPTION WHEN unique_violation THEN", "EXCEPTION WHEN division_by_zero THEN"))
def test_A1_what_cannot_be_read_gives_way_to_the_turn_that_became_active(bridge: Bridge) -> None:
    """While another one of its conversation is active, it counts nothing and waits for that one's end (T1)."""
    match = bridge.match()
    bridge.write(match)
    active = bridge.typing(match)
    bridge.write(match)
    turn = bridge.pushed(match)
    assert bridge.store.unreadable(turn, "compose", "no").name == "nothing"
    assert (bridge.turn(turn).state, bridge.turn(turn).attempts) == ("queued", 0)
    assert bridge.deliver(active, max_merges=0).next_turn == turn


# Rule A2: the dead try again


@without(
    (
        "retry_dead",
        "v_waiting := bridge.open_waiting(t.match_id, t.bot_id, NULL);",
        """UPDATE bridge.turns SET state = 'queued', due_at = bridge.now(), ended_at = NULL WHERE id = t.id;
           RETURN jsonb_build_object('outcome', 'retried', 'turn_id', t.id);""",
    )
)
@pytest.mark.parametrize("waiting", ["open", "queued"])
def test_A2_a_dead_reply_goes_on_in_the_waiting_turn(bridge: Bridge, ledger: Ledger, waiting: str) -> None:
    """Its messages join those that wait, and one answer covers all, in the order of their capture."""
    match = bridge.match()
    first = bridge.write(match)
    dead = _die(bridge, match)
    second = bridge.write(match)
    bridge.group()
    if waiting == "queued":
        bridge.pushed(match)
    [_, turn] = bridge.turns(match)
    assert turn.state == waiting

    decision = ledger.retry(dead)
    assert (decision.outcome, decision.turn_id) == ("retried", turn.id)
    assert (bridge.turn(dead).state, bridge.turn(dead).reason) == ("cancelled", "retried")
    assert bridge.covered(turn.id) == [first, second]
    assert ledger.retry(dead).outcome == "nothing"
    assert bridge.deliver(bridge.typing(match) if waiting == "open" else _typing(bridge, turn.id)).name == "answered"


def _typing(bridge: Bridge, turn: int) -> int:
    assert bridge.finish(bridge.claim(turn)).name == "typing"
    bridge.advance(6)
    return turn


@without(
    (
        "retry_dead",
        "v_waiting := bridge.open_waiting(t.match_id, t.bot_id, NULL);",
        """SELECT w.id INTO v_waiting FROM bridge.turns w
           WHERE w.match_id = t.match_id AND bridge.is_waiting(w.kind, w.state);""",
    )
)
def test_A2_a_dead_reply_retried_while_its_waiting_turn_is_claimed_opens_a_new_one(
    bridge: Bridge, ledger: Ledger
) -> None:
    """The operator waits for the claim and finds no waiting turn any more: the messages get one of their own."""
    match = bridge.match()
    first = bridge.write(match)
    dead = _die(bridge, match)
    second = bridge.write(match)
    turn = bridge.pushed(match)
    worker = bridge.session(SERVICE)
    bridge.rows("SELECT bridge.claim(%s, %s, 15, 0)", turn, str(uuid4()), connection=worker)

    retry = bridge.execute(bridge.connect(SERVICE), "SELECT bridge.retry_dead(%s)", dead)
    retry.until_waiting()
    worker.commit()
    retry.result()
    [_, active, waiting] = bridge.turns(match)
    assert (active.state, waiting.state) == ("composing", "open")
    assert (bridge.covered(active.id), bridge.covered(waiting.id)) == ([second], [first])
    assert ledger.retry(dead).state == "cancelled"


@without(("retry_dead", "FOR UPDATE OF e;", "FOR KEY SHARE OF e;"))
def test_A2_a_dead_opener_waits_for_a_message_under_way_and_stays_silent(bridge: Bridge, ledger: Ledger) -> None:
    """An opener is not revived into a match in which somebody is just writing."""
    match = bridge.match(opener=True)
    opener = _dead_opener(bridge, match)
    app = bridge.session()
    bridge.write(match, connection=app)
    retry = bridge.execute(bridge.connect(SERVICE), "SELECT bridge.retry_dead(%s)", opener)
    retry.until_waiting()
    app.commit()
    retry.result()
    assert (bridge.turn(opener).state, bridge.turn(opener).reason) == ("cancelled", "message")
    assert ledger.retry(opener).outcome == "nothing"


@without(("retry_dead", "attempts = 0, takeovers = 0,", ""))
def test_A2_a_dead_opener_speaks_after_all_if_nobody_wrote(bridge: Bridge, ledger: Ledger) -> None:
    """It goes on in its own row, with its failures forgotten."""
    match = bridge.match(opener=True)
    opener = _dead_opener(bridge, match)
    assert ledger.retry(opener).turn_id == opener
    claim = bridge.claim(opener)
    assert bridge.store.fail(opener, claim.token, "ValueError", retry=0, counts=True).name == "failed"
    _typing(bridge, opener)
    assert bridge.deliver(opener).name == "answered"
    assert bridge.messages(match) == [(CAMILLE, "coucou")]


# Rule A3: retention


@without(("prune", "AND bridge.answers(t.kind) AND t.state IN ('answered', 'cancelled')", ""))
def test_A3_retention_takes_what_is_over_and_nothing_else(bridge: Bridge) -> None:
    """Finished replies go with their events; unfinished and dead turns and openers stay, however old."""
    answered, dead, opened, undrawn = bridge.match(), bridge.match(HUGO), bridge.match(opener=True), bridge.match()
    bridge.write(answered)
    over = bridge.typing(answered)
    assert bridge.deliver(over).name == "answered"
    bridge.write(dead, sender=HUGO)
    _die(bridge, dead)
    assert bridge.deliver(bridge.typing_opener(opened)).name == "answered"
    bridge.value("SELECT bridge.capture_match(%s, %s, %s, now())", undrawn, LEA, CAMILLE)
    bridge.group(probability=0)
    bridge.write(answered)
    bridge.group()
    before = bridge.rows("SELECT id FROM bridge.turns WHERE id <> %s ORDER BY id", over)
    events = bridge.rows("SELECT id FROM bridge.events WHERE turn_id <> %s ORDER BY id", over)

    assert bridge.store.prune(RETENTION_DAYS, 1000) == 0
    bridge.advance((RETENTION_DAYS + 1) * DAY)
    assert bridge.store.prune(RETENTION_DAYS, 1000) == 1
    assert bridge.rows("SELECT id FROM bridge.turns ORDER BY id") == before
    assert bridge.rows("SELECT id FROM bridge.events ORDER BY id") == events


@without(("prune", "LIMIT p_limit", ""))
def test_A3_retention_goes_in_steps(bridge: Bridge) -> None:
    """One call deletes as many turns as it is allowed to, the oldest first."""
    turns = []
    for _ in range(3):
        match = bridge.match()
        bridge.write(match)
        turns.append(bridge.typing(match))
        bridge.deliver(turns[-1])
    bridge.advance((RETENTION_DAYS + 1) * DAY)
    assert bridge.store.prune(RETENTION_DAYS, 2) == 2
    assert bridge.rows("SELECT id FROM bridge.turns") == [(turns[2],)]


@without(("prune", "FOR UPDATE SKIP LOCKED", "FOR UPDATE"))
def test_A3_retention_waits_for_nobody(bridge: Bridge) -> None:
    """A turn that somebody holds is left for the next time."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    bridge.deliver(turn)
    bridge.advance((RETENTION_DAYS + 1) * DAY)
    holder = bridge.session(ADMIN)
    bridge.rows("SELECT FROM bridge.turns WHERE id = %s FOR SHARE", turn, connection=holder)
    assert bridge.run(lambda store: store.prune(RETENTION_DAYS, 1000)).result_at_once() == 0


@without(("draw", "md5(p_match::text || p_purpose)", "md5(random()::text)"))
def test_A3_a_draw_that_is_drawn_again_falls_the_same(bridge: Bridge) -> None:
    """A crash or a second capture never gives an opener a second chance."""
    draws = {bridge.value("SELECT bridge.draw(%s, 'probability')", LEA) for _ in range(10)}
    assert len(draws) == 1


def test_A3_draws_are_spread_and_independent(bridge: Bridge) -> None:
    """Over many matches the draws are even, and the delay does not follow from the probability."""
    [(mean, both, smallest, largest)] = bridge.rows("""
        WITH d AS (SELECT bridge.draw(m, 'probability') AS p, bridge.draw(m, 'delay') AS d
                   FROM (SELECT md5(i::text)::uuid AS m FROM generate_series(1, 2000) i) s)
        SELECT avg(p), avg((p < 0.5 AND d < 0.5)::integer), min(p), max(p) FROM d
    """)
    assert 0.45 < mean < 0.55
    assert 0.2 < both < 0.3
    assert 0 <= smallest < largest < 1


def _import(bridge: Bridge, match: str, days: float) -> str:
    """Write a message of so many days after the installation by the app's time, as another trigger would see it."""
    message = str(uuid4())
    bridge.rows("SET session_replication_role = replica")
    bridge.rows(WRITE, message, match, LEA, "salut")
    bridge.rows(
        "UPDATE messages SET created_at = (SELECT installed_at FROM bridge.installation) + make_interval(secs => %s)"
        " WHERE id = %s",
        *(days * DAY, message),
    )
    bridge.rows("RESET session_replication_role")
    return message


@without(("capture_notified", "h.created_at >= v_installed OR bridge.is_old(p_match, h.created_at)", "true"))
def test_A3_no_notification_captures_what_is_older_than_the_installation(bridge: Bridge) -> None:
    """A message that nobody promised to answer is refused."""
    match = bridge.match()
    bridge.advance(0.1 * DAY)
    message = _import(bridge, match, -0.1)
    assert bridge.store.capture_notified(match, message) is None
    assert bridge.captured(message) == 0


@without(("capture_notified", "CASE WHEN c.matched_at >= v_installed OR", "CASE WHEN true OR"))
def test_A3_no_notification_captures_a_match_that_is_older_than_the_installation(bridge: Bridge) -> None:
    """Matches from before the installation get no opener."""
    match = bridge.match()
    bridge.rows("UPDATE matches SET created_at = now() - interval '1 day'")
    assert bridge.store.capture_notified(match, None) is None


@without(("is_old", "p_created_at < v_now - make_interval", "p_created_at > v_now + make_interval"))
def test_A3_a_notification_of_what_is_old_is_kept_and_not_answered(bridge: Bridge) -> None:
    """A message and a match older than IGNORE_OLDER_DAYS end as the triggers end them."""
    match = bridge.match()
    bridge.rows("UPDATE matches SET created_at = '2023-05-01'")
    bridge.advance(17 * DAY)
    message = _import(bridge, match, 1.0)
    assert bridge.store.capture_notified(match, message) is not None
    assert bridge.store.capture_notified(match, None) is not None
    assert bridge.group() == []
    assert bridge.rows("SELECT kind, state, reason FROM bridge.turns ORDER BY kind") == [
        ("initiation", "cancelled", "old"),
        ("reply", "cancelled", "old"),
    ]


@without(("capture_notified", "bridge.capture_message(p_message, p_match, h.sender_id, h.created_at)", "NULL"))
def test_A3_a_notification_captures_what_is_young_enough_once(bridge: Bridge) -> None:
    """A young message or match is captured by what the database says of it, and a second time nothing happens."""
    bridge.advance(17 * DAY)
    match, other = bridge.match(), bridge.match()
    message = _import(bridge, match, 16.0)
    event = bridge.store.capture_notified(match, message)
    assert event is not None
    assert bridge.store.capture_notified(match, message) == event
    assert bridge.store.capture_notified(other, message) is None
    assert bridge.store.capture_notified(match, str(uuid4())) is None
    bridge.rows("UPDATE matches SET created_at = created_at + interval '16 days'")
    event = bridge.store.capture_notified(match, None)
    assert event is not None
    assert bridge.store.capture_notified(match, None) == event
    assert bridge.covered(bridge.pushed(match)) == [message]


def _answered_and_pruned(bridge: Bridge, days: float) -> tuple[str, str]:
    """Answer a message, delete the reply from the app, and let retention forget the turn; return match and message."""
    bridge.rows("UPDATE bridge.bots SET ignore_older_days = %s WHERE scope = 'default'", days)
    match = bridge.match()
    message = bridge.write(match)
    assert bridge.deliver(bridge.typing(match)).name == "answered"
    bridge.rows("DELETE FROM messages WHERE sender_id = %s", CAMILLE)
    bridge.advance((RETENTION_DAYS + 1) * DAY)
    assert bridge.store.prune(RETENTION_DAYS, 1000) == 1
    return match, message


@without(("prune", "SELECT e.match_id, max(e.created_at) FROM", "SELECT e.match_id, '-infinity' FROM"))
@pytest.mark.parametrize("days", [0.0, 40.0])
def test_A3_no_replay_answers_what_retention_has_forgotten(bridge: Bridge, ledger: Ledger, days: float) -> None:
    """A message whose turn was pruned is never answered twice, though its reply and the age rule are gone."""
    match, message = _answered_and_pruned(bridge, days)
    since = bridge.value("SELECT installed_at - interval '1 day' FROM bridge.installation")
    replayed = ledger.replay(since, None, None, retention_days=RETENTION_DAYS, dry_run=False)
    assert (replayed.found, replayed.captured) == (0, 0)
    later = bridge.value("SELECT bridge.now()")
    bridge.rows(
        "INSERT INTO messages (match_id, sender_id, content, created_at) VALUES (%s, %s, 'et là ?', %s)",
        *(match, LEA, later),
    )
    assert bridge.captured(message) == 0
    assert len(bridge.covered(bridge.pushed(match))) == 1


@without(
    ("is_old", "OR EXISTS (SELECT FROM bridge.forgotten f WHERE f.match_id = p_match AND p_created_at <= f.until)", "")
)
@pytest.mark.parametrize("days", [0.0, 40.0])
@pytest.mark.parametrize("way", ["a notification", "a move to another partition"])
def test_A3_nothing_that_retention_has_forgotten_is_answered_again(bridge: Bridge, days: float, way: str) -> None:
    """A forged notification, and a row that PostgreSQL moves and so inserts again, are captured as old."""
    match, message = _answered_and_pruned(bridge, days)
    if way == "a notification":
        assert bridge.store.capture_notified(match, message) is not None
    else:
        bridge.rows("WITH moved AS (DELETE FROM messages WHERE id = %s RETURNING *) SELECT FROM moved", message)
        bridge.rows(
            "INSERT INTO messages SELECT %s, f.match_id, %s, 'salut', f.until FROM bridge.forgotten f", message, LEA
        )
    assert bridge.group() == []
    assert [(turn.state, turn.reason) for turn in bridge.turns(match)] == [("cancelled", "old")]


@without(("prune", "e.created_at >= v_before AND e.created_at < 'infinity'", "false"))
def test_A3_a_message_dated_ahead_is_remembered_until_then(bridge: Bridge, ledger: Ledger) -> None:
    """What an app dates two months ahead is never missed on that day, nor answered again."""
    match, other = bridge.match(), bridge.match(HUGO)
    for where, who, time in ((match, LEA, "60 days"), (other, HUGO, "infinity")):
        bridge.rows(
            "INSERT INTO messages (match_id, sender_id, content, created_at)"
            " SELECT %s, %s, 'salut', CASE %s WHEN 'infinity' THEN 'infinity' ELSE bridge.now() + %s::interval END",
            *(where, who, time, "60 days"),
        )
        assert bridge.deliver(bridge.typing(where)).name == "answered"
    bridge.advance(31 * DAY)
    assert bridge.store.prune(RETENTION_DAYS, 1000) == 1
    bridge.advance(30 * DAY)
    assert bridge.store.prune(RETENTION_DAYS, 1000) == 0
    assert ledger.verify(RETENTION_DAYS).unaccounted == 0
    assert ledger.replay(None, None, None, retention_days=RETENTION_DAYS, dry_run=False).captured == 0
    bridge.advance(30 * DAY)
    assert bridge.store.prune(RETENTION_DAYS, 1000) == 1
