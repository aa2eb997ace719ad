"""Rules H1 to H4 and Q0: a human writes in a bot's name, and a bot that is paused or off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest

from tests.support.roles import SERVICE
from tests.support.rules import CAMILLE, GROUPING_DELAY, LEA, Bridge, without

if TYPE_CHECKING:
    from typing import Any

PAUSE: Final = 3600.0
DELIVER: Final = "SELECT bridge.deliver_turn(%s)"


def spoken(bridge: Bridge, match: str) -> int:
    """Return how many messages a human wrote in the bot's name, as captured."""
    return int(bridge.value("SELECT count(*) FROM bridge.events WHERE match_id = %s AND kind = 'human'", match))


def state(bridge: Bridge, match: str) -> Any:  # noqa: ANN401 - a JSON object
    """Return what the app is told of a match."""
    return bridge.value("SELECT bridge.state(%s)", match)


def ours(bridge: Bridge, match: str) -> list[str]:
    """Return the texts in the bot's name, oldest first."""
    return [text for sender, text in bridge.messages(match) if sender == CAMILLE]


def verified(bridge: Bridge) -> dict[str, int]:
    """Return what `verify` counts, except what it counts none of."""
    counted: dict[str, int] = bridge.value("SELECT bridge.verify(30, 10) - 'faults'")
    return {name: number for name, number in counted.items() if number}


# H1


@without(
    ("say", "PERFORM set_config('bridge.says', p_match::text, true);", ""),
    ("is_said_by_us", "t.reply_message_id = p_message", "false"),
)
@pytest.mark.parametrize("opener", [True, False], ids=["opener", "reply"])
def test_H1_what_the_bridge_says_is_no_human_s(bridge: Bridge, opener: bool) -> None:  # noqa: FBT001
    """A reply and an opener make no event of kind `human`, and no pause follows."""
    match = bridge.match(opener=opener)
    if not opener:
        bridge.write(match)
    turn = bridge.typing_opener(match) if opener else bridge.typing(match)
    assert bridge.deliver(turn).name == "answered"
    assert spoken(bridge, match) == 0


@without(("say", "PERFORM set_config('bridge.says', '', true);", ""))
def test_H1_after_a_reply_its_transaction_speaks_for_nobody(bridge: Bridge) -> None:
    """The setting ends with the reply, not with the transaction: what follows there in the bot's name is a human's."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    session = bridge.session("postgres")
    assert bridge.value(DELIVER, turn, connection=session)["outcome"] == "answered"
    bridge.write(match, "c'est moi", sender=CAMILLE, connection=session)
    session.commit()
    assert spoken(bridge, match) == 1


@without(("is_said_by_us", "t.reply_message_id = p_message", "false"))
def test_H1_a_reply_that_moves_is_ours(bridge: Bridge) -> None:
    """Captured again, as a partition's move does, our reply is no human's."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    assert bridge.deliver(turn).name == "answered"
    reply = str(bridge.turn(turn).reply_message_id)
    assert bridge.value("SELECT bridge.capture_message(%s, %s, %s, now())", reply, match, CAMILLE) is None


@without(("capture_human", "OR bridge.is_old(p_match, p_created_at)", ""))
def test_H1_an_old_message_in_the_bot_s_name_is_history(bridge: Bridge) -> None:
    """What the app dates more than IGNORE_OLDER_DAYS back pauses nothing."""
    match = bridge.match()
    old = "SELECT bridge.capture_message(%s, %s, %s, now() - interval '20 days')"
    assert bridge.value(old, str(uuid4()), match, CAMILLE) is None
    assert spoken(bridge, match) == 0


@without(("capture_human", "(SELECT p.takeover_pause > 0 FROM bridge.policy(p_bot) p) IS NOT TRUE OR", ""))
def test_H1_with_no_pause_such_a_message_is_ignored(bridge: Bridge) -> None:
    """TAKEOVER_PAUSE=0: no event, no lock, and the reply is delivered, as before."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    with bridge.policy(takeover_pause=0):
        bridge.write(match, "c'est moi", sender=CAMILLE)
        assert spoken(bridge, match) == 0
        assert bridge.deliver(turn).name == "answered"
    assert bridge.value("SELECT count(*) FROM bridge.events WHERE match_id = %s AND kind = 'match'", match) == 0


# H2


@without(
    ("silenced", "FOR UPDATE SKIP LOCKED", "FOR KEY SHARE"),
    ("silenced", "PERFORM pg_advisory_xact_lock", "PERFORM length('x') + "),
)
@pytest.mark.parametrize("known", [True, False], ids=["match known", "from before"])
def test_H2_a_reply_waits_for_a_human_s_open_transaction(bridge: Bridge, known: bool) -> None:  # noqa: FBT001
    """While a human's INSERT is under way the reply is `later`; after its commit the turn ends as `taken_over`."""
    bridge.impatient()
    match = bridge.match(opener=known)
    bridge.write(match)
    turn = bridge.typing(match)
    human = bridge.session()
    bridge.write(match, "c'est moi", sender=CAMILLE, connection=human)
    assert bridge.deliver(turn).name == "later"
    human.commit()
    bridge.advance(2)
    bridge.group()
    bridge.deliver(turn)
    assert ours(bridge, match) == ["c'est moi"]
    assert (bridge.turn(turn).state, bridge.turn(turn).reason) == ("cancelled", "taken_over")


@without(("share_match", "pg_advisory_xact_lock_shared(bridge.old_match_key(p_match))", "1"))
def test_H2_in_a_match_from_before_the_installation_a_human_waits_too(bridge: Bridge) -> None:
    """It has no event row, and an advisory lock takes its place."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    delivery = bridge.session(SERVICE)
    assert bridge.value(DELIVER, turn, connection=delivery)["outcome"] == "answered"
    human = bridge.session()
    write = "INSERT INTO messages (id, match_id, sender_id, content) VALUES (%s, %s, %s, %s)"
    running = bridge.execute(human, write, str(uuid4()), match, CAMILLE, "c'est moi")
    running.until_waiting()
    delivery.commit()
    running.result()
    human.commit()
    assert spoken(bridge, match) == 1


@without(("silenced", "IF v_spoken THEN", "IF false THEN"))
def test_H2_a_human_s_message_that_nobody_grouped_holds_the_reply_back(bridge: Bridge) -> None:
    """The delivery looks at ungrouped events, too."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    bridge.write(match, "c'est moi", sender=CAMILLE)
    assert bridge.deliver(turn).name == "nothing"
    bridge.group()
    assert (bridge.turn(turn).state, bridge.turn(turn).reason) == ("cancelled", "taken_over")
    assert ours(bridge, match) == ["c'est moi"]


# H3


@without(
    ("answer_events", "AND e.id > p_last", "AND false"), ("take_over", "e.turn_id = t.id AND e.id > h.last_id", "false")
)
@pytest.mark.parametrize("place", ["open", "composing", "typing", "dead"])
def test_H3_a_human_answers_what_came_before(bridge: Bridge, place: str) -> None:
    """The messages before are accounted for as `taken_over`, those after it are answered once the pause is over."""
    match = bridge.match()
    before = bridge.write(match, "un")
    bridge.write(match, "c'est moi", sender=CAMILLE)
    after = bridge.write(match, "deux")
    # One turn holds both, as if a claim had taken the later one along before the human's message was grouped.
    bridge.rows("UPDATE bridge.events SET error = 'x' WHERE kind = 'human'")
    if place == "open":
        bridge.group()
    else:
        claim = bridge.claimed(match)
        if place == "typing":
            bridge.finish(claim)
        elif place == "dead":
            bridge.rows("SELECT bridge.end_turn(%s, 'dead', NULL, 'x')", claim.turn)
    bridge.rows("UPDATE bridge.events SET error = NULL WHERE kind = 'human'")
    bridge.group()

    reasons = dict(
        bridge.rows(
            "SELECT e.message_id, coalesce(t.reason, t.state) FROM bridge.events e JOIN bridge.turns t"
            " ON t.id = e.turn_id WHERE e.match_id = %s AND e.kind = 'message'",
            match,
        )
    )
    assert reasons[before] == "taken_over"
    if place == "dead":
        assert reasons[after] == "dead"
        return
    assert reasons[after] == "open"
    bridge.advance(GROUPING_DELAY + 1)
    bridge.push()
    waiting = bridge.turns(match)
    [held] = [turn for turn in waiting if turn.state == "queued"]
    assert bridge.claim(held.id).outcome.name == "held"
    bridge.advance(PAUSE)
    turn = bridge.typing(match)
    assert bridge.covered(turn) == [after]
    assert bridge.deliver(turn).name == "answered"
    assert verified(bridge) == {"messages": 2, "answered": 1, "cancelled": 1}
    replayed = bridge.value("SELECT bridge.replay(NULL, NULL, NULL, 30, 10, false)")
    assert {replayed[name] for name in ("found", "captured", "given_back")} == {0}


@without(("take_over", "FOR NO KEY UPDATE NOWAIT LOOP IF t.parts_out", "FOR NO KEY UPDATE LOOP IF t.parts_out"))
def test_H3_a_turn_that_another_session_holds_leaves_the_human_s_event_for_the_next_look(bridge: Bridge) -> None:
    """Grouping waits for no active turn, groups the other conversations, and ends this turn at the next look."""
    match, other = bridge.match(), bridge.match()
    bridge.write(match)
    claim = bridge.claimed(match)
    holder = bridge.session("postgres")
    bridge.rows("SELECT FROM bridge.turns WHERE id = %s FOR NO KEY UPDATE", claim.turn, connection=holder)
    bridge.write(match, "c'est moi", sender=CAMILLE)
    bridge.write(other)
    assert [event.match_id for event in bridge.run(lambda store: store.group()).result_at_once()] == [other]
    holder.rollback()
    assert [event.kind for event in bridge.group()] == ["human"]
    assert bridge.turn(claim.turn).reason == "taken_over"
    assert bridge.finish(claim).name == "fenced"


def test_H3_a_human_s_message_cancels_the_opener(bridge: Bridge) -> None:
    """The opener ends as `message` when the human's message is grouped."""
    match = bridge.match(opener=True)
    bridge.group()
    bridge.write(match, "c'est moi", sender=CAMILLE)
    bridge.group()
    assert (bridge.opener(match).state, bridge.opener(match).reason) == ("cancelled", "message")


# H4


@without(("take_over", "known.first_at + 3 * v_pause", "'infinity'"))
def test_H4_later_messages_of_the_human_lengthen_the_pause_up_to_three_times(bridge: Bridge) -> None:
    """The pause counts from each message's capture, and ends three times TAKEOVER_PAUSE after the first."""
    bridge.stop_clock()
    match = bridge.match()
    first = bridge.value("SELECT bridge.now()")
    lengths = []
    for _ in range(5):
        bridge.write(match, "moi", sender=CAMILLE)
        bridge.group()
        until = bridge.value("SELECT until FROM bridge.pauses WHERE match_id = %s AND cause = 'human'", match)
        lengths.append((until - first).total_seconds() / PAUSE)
        bridge.advance(0.7 * PAUSE)
    assert lengths == pytest.approx([1, 1.7, 2.4, 3, 3], abs=0.01)
    bridge.advance(PAUSE)
    bridge.write(match, "moi", sender=CAMILLE)
    bridge.group()
    assert state(bridge, match)["state"] == "paused"


@without(("take_over", "FOR UPDATE NOWAIT;", "FOR UPDATE;"))
def test_H4_a_pause_that_the_app_holds_blocks_no_other_conversation(bridge: Bridge) -> None:
    """While the app's transaction holds a pause, grouping leaves that human's message and goes on."""
    match, other = bridge.match(), bridge.match()
    bridge.write(match, "moi", sender=CAMILLE)
    bridge.group()
    app = bridge.session("postgres")
    bridge.rows("SELECT bridge.resume(%s)", match, connection=app)
    bridge.write(match, "encore moi", sender=CAMILLE)
    bridge.write(other)
    assert [event.match_id for event in bridge.run(lambda store: store.group()).result_at_once()] == [other]
    app.commit()
    assert [event.match_id for event in bridge.group()] == [match]


def test_H4_a_takeover_does_not_overwrite_left(bridge: Bridge) -> None:
    """Both pauses stand, and what people write stays `left`."""
    match = bridge.match()
    bridge.write(match)
    claim = bridge.claimed(match)
    bridge.store.finish(claim.turn, claim.token, "adieu", pause=0, action="leave")
    bridge.write(match, "c'est moi", sender=CAMILLE)
    bridge.group()
    bridge.write(match)
    bridge.group()
    assert bridge.turns(match)[-1].reason == "left"
    assert state(bridge, match)["state"] == "left"


# Q0


@without(("claim", "t.token IS NULL AND ( v_policy.paused", "t.token IS NULL AND ( false"))
def test_Q0_what_is_written_in_a_pause_is_answered_together_at_its_end(bridge: Bridge) -> None:
    """The turn is `open` and `held`, newer messages join it, and `resume` makes it due at once."""
    match = bridge.match()
    assert bridge.value("SELECT bridge.pause(%s, NULL)", match) is True
    written = [bridge.write(match)]
    turn = bridge.pushed(match)
    assert bridge.claim(turn).outcome.name == "held"
    held = bridge.turn(turn)
    assert (held.state, held.held) == ("open", "paused")
    assert (held.due_at - bridge.value("SELECT bridge.now()")).total_seconds() <= 86400
    written.append(bridge.write(match))
    bridge.group()
    assert bridge.store.plan_held() == 0
    assert state(bridge, match) == {
        "state": "paused",
        "answers_at": state(bridge, match)["answers_at"],
        "paused_until": "infinity",
    }
    assert bridge.value("SELECT bridge.resume(%s)", match) is True
    bridge.push()
    claim = bridge.claim(turn)
    assert claim.outcome.name == "claimed"
    assert bridge.covered(turn) == written


@without(("silenced", "RETURN bridge.hold_turn(p_turn);", "RETURN NULL;"))
def test_Q0_a_pause_holds_a_reply_that_types(bridge: Bridge) -> None:
    """The delivery looks; the turn goes back to `open` without a merge, and is composed anew after the pause."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    bridge.rows("SELECT bridge.pause(%s, bridge.now() + interval '1 hour')", match)
    assert bridge.deliver(turn).name == "held"
    assert (bridge.turn(turn).state, bridge.turn(turn).merges, bridge.turn(turn).draft) == ("open", 0, None)
    assert ours(bridge, match) == []
    bridge.advance(PAUSE + 1)
    bridge.push()
    claim = bridge.claim(turn)
    bridge.finish(claim)
    bridge.advance(6)
    assert bridge.deliver(turn).name == "answered"


@without(("plan_held", "OR t.held = 'paused' AND bridge.paused_until(t.match_id, t.bot_id) IS NULL", ""))
def test_Q0_a_bot_that_is_resumed_answers_what_it_held(bridge: Bridge) -> None:
    """A bot's pause holds all its conversations; the sweep after `resume_bot` plans them."""
    match = bridge.match()
    bridge.rows("SELECT bridge.pause_bot(%s, NULL)", CAMILLE)
    bridge.write(match)
    turn = bridge.pushed(match)
    assert bridge.claim(turn).outcome.name == "held"
    assert bridge.value("SELECT bridge.resume(%s)", match) is False
    assert bridge.store.plan_held() == 0
    assert bridge.value("SELECT bridge.resume_bot(%s)", CAMILLE) is True
    assert bridge.store.plan_held() == 1
    bridge.push()
    assert bridge.claim(turn).outcome.name == "claimed"


@without(
    ("silent_matches", "IF v_off IS NOT NULL THEN", "IF false THEN"),
    ("claim", "ELSIF NOT v_policy.active THEN", "ELSIF false THEN"),
    ("silenced", "IF NOT v_active THEN", "IF false THEN"),
)
@pytest.mark.parametrize("place", ["ungrouped", "queued", "typing"])
def test_Q0_what_is_written_to_a_bot_that_is_off_ends_as_off(bridge: Bridge, place: str) -> None:
    """It is captured and cancelled at once, and nothing is held; once the bot is on it answers what comes then."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match) if place == "queued" else bridge.typing(match) if place == "typing" else None
    with bridge.policy(active=False):
        if place == "ungrouped":
            [event] = bridge.group()
            assert (event.state, event.reason) == ("cancelled", "off")
        else:
            assert turn is not None
            outcome = bridge.deliver(turn) if place == "typing" else bridge.claim(turn).outcome
            assert (outcome.name, outcome.details.get("reason")) == ("cancelled", "off")
        assert state(bridge, match)["state"] == "off"
    assert bridge.turns(match)[-1].reason == "off"
    after = bridge.write(match)
    turn = bridge.typing(match)
    assert bridge.covered(turn) == [after]
    assert bridge.deliver(turn).name == "answered"


def test_state_follows_a_turn(bridge: Bridge) -> None:
    """The app is told idle, open, queued, composing, typing and idle again; of a match without a bot nothing."""
    match = bridge.match()
    told = [state(bridge, match)["state"]]
    bridge.write(match, sender=LEA)
    told.append(state(bridge, match)["state"])
    turn = bridge.pushed(match)
    told.append(state(bridge, match)["state"])
    claim = bridge.claim(turn)
    told.append(state(bridge, match)["state"])
    bridge.finish(claim)
    told.append(state(bridge, match)["state"])
    bridge.advance(6)
    bridge.deliver(turn)
    told.append(state(bridge, match)["state"])
    assert told == ["idle", "open", "queued", "composing", "typing", "idle"]
    assert state(bridge, str(uuid4())) is None
