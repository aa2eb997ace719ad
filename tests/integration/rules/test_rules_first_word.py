from __future__ import annotations

from typing import Final
from uuid import uuid4

import pytest

from tests.support.roles import ADMIN, OWNER, SERVICE
from tests.support.rules import CAMILLE, HUGO, LEA, PAUL, WRITE, Bridge, without

DELIVER: Final = "SELECT bridge.deliver_turn(%s)"

# Rule F1: the opener and a first message

DELIVERS_WITHOUT_LOCK: Final = (
    "deliver_turn",
    "PERFORM FROM bridge.events WHERE kind = 'match' AND match_id = v_match FOR UPDATE;",
    "NULL;",
)
WRITES_WITHOUT_LOCK: Final = ("before_message", "FOR KEY SHARE OF e", "")


@pytest.mark.parametrize("before_the_turn", [False, True], ids=["after grouping", "before grouping"])
@without(DELIVERS_WITHOUT_LOCK)
def test_F1_an_opener_waits_for_a_message_under_way_and_is_cancelled(bridge: Bridge, *, before_the_turn: bool) -> None:
    """An uncommitted message holds the opener up, whether its INSERT came before the opener's turn existed or after."""
    match = bridge.match(opener=True)
    app = bridge.session()
    if before_the_turn:
        bridge.write(match, connection=app)
        turn = bridge.typing_opener(match)
    else:
        turn = bridge.typing_opener(match)
        bridge.write(match, connection=app)

    delivering = bridge.run(lambda store: store.deliver(turn))
    delivering.until_waiting()
    app.commit()
    outcome = delivering.result()
    assert (outcome.name, outcome.details["reason"]) == ("cancelled", "message")
    assert [sender for sender, _ in bridge.messages(match)] == [LEA]


@without(("before_message", "e.turn_id IS NULL OR", ""))
def test_F1_a_message_from_before_the_grouping_holds_the_opener_up(bridge: Bridge) -> None:
    """The lock is the match's event, which is there before the turn is: an INSERT that found no turn counts."""
    match = bridge.match(opener=True)
    app = bridge.session()
    bridge.write(match, connection=app)
    turn = bridge.typing_opener(match)

    delivering = bridge.run(lambda store: store.deliver(turn))
    delivering.until_waiting()
    app.commit()
    assert delivering.result().name == "cancelled"


@without(
    (
        "deliver_turn",
        "IF bridge.speaks_first(v_kind) THEN",
        """IF bridge.speaks_first(v_kind) THEN
               SELECT 'seen' INTO v_error FROM bridge.history(v_match, '{}', 1);""",
    ),
    ("deliver_turn", "PERFORM FROM bridge.history(t.match_id, '{}', 1); IF FOUND THEN", "IF v_error = 'seen' THEN"),
)
def test_F1_the_opener_looks_for_messages_after_it_has_the_lock(bridge: Bridge) -> None:
    """The look is a statement after the lock: what committed while the delivery waited is seen."""
    match = bridge.match(opener=True)
    turn = bridge.typing_opener(match)
    app = bridge.session()
    bridge.write(match, connection=app)

    delivering = bridge.run(lambda store: store.deliver(turn))
    delivering.until_waiting()
    app.commit()
    assert delivering.result().name == "cancelled"


@without(DELIVERS_WITHOUT_LOCK)
def test_F1_an_opener_whose_message_was_rolled_back_is_delivered(bridge: Bridge) -> None:
    """A message that came to nothing costs the opener its waiting, and no more."""
    match = bridge.match(opener=True)
    turn = bridge.typing_opener(match)
    app = bridge.session()
    bridge.write(match, connection=app)

    delivering = bridge.run(lambda store: store.deliver(turn))
    delivering.until_waiting()
    app.rollback()
    assert delivering.result().name == "answered"
    assert bridge.messages(match) == [(CAMILLE, "bonjour")]


@without(WRITES_WITHOUT_LOCK)
def test_F1_a_message_waits_for_an_opener_under_way_and_comes_after_it(bridge: Bridge) -> None:
    """No INSERT returns to the app while an opener is on its way into the same match."""
    match = bridge.match(opener=True)
    turn = bridge.typing_opener(match)
    delivery = bridge.session(SERVICE)
    assert bridge.value(DELIVER, turn, connection=delivery)["outcome"] == "answered"

    message = str(uuid4())
    writing = bridge.execute(bridge.connect(), WRITE, message, match, LEA, "salut")
    writing.until_waiting()
    delivery.commit()
    writing.result()
    assert bridge.opener(match).state == "answered"
    assert bridge.covered(bridge.pushed(match)) == [message]


@without(
    ("sql", "DROP TRIGGER bridge_before_message ON messages"),
    (
        "sql",
        """CREATE TRIGGER bridge_before_message AFTER INSERT ON messages
           FOR EACH ROW EXECUTE FUNCTION bridge.before_message()""",
    ),
)
def test_F1_a_message_that_waited_for_an_opener_is_stamped_after_it(bridge: Bridge) -> None:
    """The lock comes before the insert, so that the capture's time is that of a message after the opener."""
    match = bridge.match(opener=True)
    turn = bridge.typing_opener(match)
    delivery = bridge.session(SERVICE)
    bridge.rows(DELIVER, turn, connection=delivery)
    message = str(uuid4())
    writing = bridge.execute(bridge.connect(), WRITE, message, match, LEA, "salut")
    writing.until_waiting()
    committed = bridge.value("SELECT bridge.now()")
    delivery.commit()
    writing.result()
    assert bridge.value("SELECT captured_at FROM bridge.events WHERE message_id = %s", message) > committed


@without(
    (
        "deliver_turn",
        DELIVERS_WITHOUT_LOCK[1],
        """PERFORM FROM bridge.events WHERE kind = 'match' AND match_id = v_match FOR UPDATE;
           UPDATE bridge.events SET error = NULL WHERE kind = 'match' AND match_id = v_match;""",
    )
)
def test_F1_a_repeatable_read_app_writes_after_the_opener_it_waited_for(bridge: Bridge) -> None:
    """The delivery locks the match's event and never changes it, or such an app's INSERT would fail with 40001."""
    match = bridge.match(opener=True)
    turn = bridge.typing_opener(match)
    app = bridge.session(isolation="REPEATABLE READ")
    bridge.rows("SELECT count(*) FROM messages", connection=app)
    delivery = bridge.session(SERVICE)
    bridge.rows(DELIVER, turn, connection=delivery)

    writing = bridge.execute(app, WRITE, str(uuid4()), match, LEA, "salut")
    writing.until_waiting()
    delivery.commit()
    writing.result()
    app.commit()
    assert [sender for sender, _ in bridge.messages(match)].count(LEA) == 1


@without(("deliver_turn", "EXCEPTION WHEN lock_not_available THEN", "EXCEPTION WHEN division_by_zero THEN"))
def test_F1_an_opener_tries_again_a_second_later_if_a_message_takes_long(bridge: Bridge) -> None:
    """A transaction of the app that stays open holds no worker: the opener is due again in 1 s, without an attempt."""
    bridge.impatient()
    match = bridge.match(opener=True)
    turn = bridge.typing_opener(match)
    app = bridge.session()
    bridge.write(match, connection=app)

    bridge.stop_clock()
    assert bridge.deliver(turn).name == "later"
    late = bridge.turn(turn)
    assert (late.state, late.attempts, late.draft) == ("typing", 0, "bonjour")
    assert (late.due_at - bridge.value("SELECT bridge.now()")).total_seconds() == 1
    app.rollback()
    bridge.advance(2)
    assert bridge.store.due_deliveries(10, []) == [turn]
    assert bridge.deliver(turn).name == "answered"


@without(("deliver_turn", "RETURNING due_at INTO t.due_at; PERFORM bridge.ring_due(p_turn, t.due_at);", ";"))
def test_F1_an_opener_that_is_held_up_tells_the_schedulers_when_it_is_due(bridge: Bridge) -> None:
    """A bell rings, or the second would be ended by a sweep of five."""
    bridge.impatient()
    match = bridge.match(opener=True)
    turn = bridge.typing_opener(match)
    bridge.write(match, connection=bridge.session())
    bell = bridge.listen()

    assert bridge.deliver(turn).name == "later"
    assert bell.heard() == [("bridge_due", "")]


@without(
    (
        "deliver_turn",
        "greatest(deliver_at, retry_at, bridge.now() + interval '1 second')",
        "bridge.now() + interval '1 second'",
    )
)
def test_F1_an_early_delivery_that_is_held_up_moves_no_due_time_forward(bridge: Bridge) -> None:
    """An opener that somebody asks for too early, while a message is under way, is still pushed when it may be said."""
    bridge.impatient()
    match = bridge.match(opener=True)
    turn = bridge.typing_opener(match)
    bridge.rows("UPDATE bridge.turns SET deliver_at = deliver_at + interval '1 h', due_at = due_at + interval '1 h'")
    bridge.write(match, connection=bridge.session())

    assert bridge.deliver(turn).name == "later"
    assert bridge.turn(turn).due_at == bridge.turn(turn).deliver_at


@without(
    (
        "before_message",
        """AND (e.turn_id IS NULL OR EXISTS (
               SELECT FROM bridge.turns t
               WHERE t.id = e.turn_id AND t.state IN ('open', 'queued', 'composing', 'typing', 'dead'))
               OR EXISTS (SELECT FROM bridge.turns f WHERE f.match_id = NEW.match_id AND f.follow_up_at IS NOT NULL)
               OR (e.bot_id = NEW.sender_id
                   AND current_setting('bridge.says', true) IS DISTINCT FROM NEW.match_id::text))""",
        "",
    )
)
@pytest.mark.parametrize("opener", ["answered", "cancelled", "none"])
def test_F1_a_conversation_whose_opener_is_over_takes_no_lock(bridge: Bridge, opener: str) -> None:
    """Once the opener was delivered, not drawn or overtaken, messages have nothing to wait for."""
    match = bridge.match(opener=True)
    if opener == "answered":
        assert bridge.deliver(bridge.typing_opener(match)).name == "answered"
    elif opener == "cancelled":
        bridge.write(match)
    bridge.group(probability=0)
    assert bridge.opener(match).state in {"answered", "cancelled"}
    holder = bridge.session(ADMIN)
    bridge.rows("SELECT FROM bridge.events WHERE kind = 'match' FOR UPDATE", connection=holder)
    bridge.execute(bridge.connect(), WRITE, str(uuid4()), match, LEA, "salut").result_at_once()


@without(
    (
        "deliver_turn",
        DELIVERS_WITHOUT_LOCK[1],
        DELIVERS_WITHOUT_LOCK[1] + " PERFORM FROM public.matches WHERE id = v_match FOR UPDATE;",
    ),
    ("sql", f"GRANT UPDATE ON matches TO {OWNER}"),
)
def test_F1_a_delivery_never_locks_the_app_s_match(bridge: Bridge) -> None:
    """A row of the app that refers to the match is written at once while the opener is on its way."""
    bridge.rows("CREATE TABLE likes (match_id uuid REFERENCES matches)", connection=bridge.people)
    match = bridge.match(opener=True)
    turn = bridge.typing_opener(match)
    delivery = bridge.session(SERVICE)
    bridge.rows(DELIVER, turn, connection=delivery)
    bridge.execute(bridge.connect(), "INSERT INTO likes VALUES (%s)", match).result_at_once()


@without(("finish", "AND bridge.answers(t.kind)", ""))
def test_F1_an_opener_is_never_delivered_by_the_step_that_stores_its_draft(bridge: Bridge) -> None:
    """Not even without a pause: `finish` holds the turn, and the match's event has to be locked first."""
    match = bridge.match(opener=True)
    bridge.group()
    bridge.advance(61)
    bridge.push()
    claim = bridge.claim(bridge.opener(match).id)
    assert bridge.finish(claim, pause=0).name == "typing"
    assert bridge.deliver(claim.turn).name == "answered"


@without(
    (
        "group_events",
        "WHERE bridge.speaks_first(t.kind) AND t.match_id = ANY (v_matches)",
        "WHERE false AND t.match_id = ANY (v_matches)",
    )
)
@pytest.mark.parametrize("state", ["open", "queued", "composing", "typing"])
def test_F1_a_message_cancels_the_opener_wherever_it_stands(bridge: Bridge, state: str) -> None:
    """Grouping a message ends the match's unfinished opener, and nothing that its worker does later revives it."""
    match = bridge.match(opener=True)
    bridge.group()
    opener = bridge.opener(match).id
    claim = None
    if state != "open":
        bridge.advance(61)
        bridge.push()
    if state in {"composing", "typing"}:
        claim = bridge.claim(opener)
    if state == "typing":
        assert claim is not None
        bridge.finish(claim)
        bridge.advance(6)
    assert bridge.turn(opener).state == state

    bridge.write(match)
    bridge.group()
    ended = bridge.turn(opener)
    assert (ended.state, ended.reason, ended.draft) == ("cancelled", "message", None)
    assert bridge.claim(opener).outcome.name == "nothing"
    assert bridge.deliver(opener).name == "nothing"
    if claim:
        assert bridge.finish(claim).name == "fenced"
    assert bridge.deliver(bridge.typing(match)).name == "answered"


@without(("task", "ELSIF bridge.speaks_first(t.kind) AND v_history <> '[]' THEN", "ELSIF false THEN"))
@pytest.mark.parametrize("sender", [LEA, CAMILLE], ids=["the person", "the bot"])
def test_F1_an_opener_is_not_composed_for_a_match_with_a_message(bridge: Bridge, sender: str) -> None:
    """The claim sees any message, grouped or not, captured or not: the bot's own counts too."""
    match = bridge.match(opener=True)
    bridge.group()
    bridge.advance(61)
    bridge.push()
    bridge.write(match, sender=sender)
    outcome = bridge.claim(bridge.opener(match).id).outcome
    assert (outcome.name, outcome.details.get("reason")) == ("cancelled", "message")


@without(
    ("sql", "DROP INDEX bridge.events_one_match; DROP INDEX bridge.turns_one_initiation"),
    ("group_events", "ON CONFLICT (match_id) WHERE kind = 'initiation' DO NOTHING", ""),
)
def test_F1_a_match_gets_one_opener_for_ever(bridge: Bridge) -> None:
    """A match that is captured again, by another trigger or a replay, is not opened again."""
    match = bridge.match(opener=True)
    bridge.group(probability=0)
    capture = "SELECT bridge.capture_match(%s, %s, %s, now())"
    assert bridge.value(capture, match, LEA, CAMILLE) is None
    bridge.group()
    assert bridge.opener(match).reason == "not_drawn"


# Rule F2: exactly one side is a bot


@without(("conversation", "AND person.is_bot IS NOT TRUE", "AND person.id <> bot.id"))
def test_F2_two_bots_never_talk_to_each_other(bridge: Bridge) -> None:
    """A match of two bots gets no opener, and what one writes there is not answered by the other."""
    match = bridge.match(CAMILLE, PAUL, opener=True)
    bridge.write(match, sender=CAMILLE)
    bridge.write(match, sender=PAUL)
    assert bridge.rows("SELECT * FROM bridge.events") == []


@without(("conversation", "AND bot.is_bot", "AND bot.id <> m.user1_id"))
def test_F2_two_people_are_left_alone(bridge: Bridge) -> None:
    """A match of two people gets no opener, and nobody answers what they write."""
    match = bridge.match(LEA, HUGO, opener=True)
    bridge.write(match, sender=LEA)
    bridge.write(match, sender=HUGO)
    assert bridge.rows("SELECT * FROM bridge.events") == []


@without(("capture_message", "WHERE p_sender IN (c.person_id, c.bot_id)", ""))
@pytest.mark.parametrize("sender", [HUGO, PAUL], ids=["another person", "another bot"])
def test_F2_only_the_person_of_the_match_is_answered(bridge: Bridge, sender: str) -> None:
    """A message of somebody who is not in the match is no event."""
    match = bridge.match()
    assert bridge.captured(bridge.write(match, sender=sender)) == 0


@without(
    ("conversation", "AND bot.is_bot", ""),
    ("conversation", "AND person.is_bot IS NOT TRUE", ""),
    ("capture_message", "WHERE p_sender IN (c.person_id, c.bot_id)", ""),
)
@pytest.mark.parametrize("alone", [LEA, CAMILLE], ids=["person", "bot"])
def test_F2_a_match_with_oneself_is_no_conversation(bridge: Bridge, alone: str) -> None:
    """Whoever matches with himself gets neither an opener nor an answer."""
    match = bridge.match(alone, alone, opener=True)
    bridge.write(match, sender=alone)
    assert bridge.rows("SELECT * FROM bridge.events") == []


@without(("conversation", "person.is_bot IS NOT TRUE", "NOT person.is_bot"))
def test_F2_who_is_not_known_to_be_a_bot_is_a_person(bridge: Bridge) -> None:
    """A profile that does not say is a person's, and is answered."""
    bridge.rows("ALTER TABLE profiles ALTER is_bot DROP NOT NULL")
    bridge.rows("UPDATE profiles SET is_bot = NULL WHERE id = %s", LEA)
    assert bridge.captured(bridge.write(bridge.match())) == 1
