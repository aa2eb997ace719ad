"""Rules P0 to P3: a reply of several messages, and what a newer message does to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from bridge_service.operate.commands.stories import parts_of
from tests.support.policy import MAX_ATTEMPTS
from tests.support.rules import CAMILLE, LEA, Bridge, without

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridge_service.turns import Action, Task
    from tests.support.rules import Claim, Taken

TEXTS: Final = ("un", "deux", "trois")
DATED: Final = (
    "INSERT INTO messages (id, match_id, sender_id, content, created_at) VALUES (gen_random_uuid(), %s, %s, %s, %s)"
)
REFUSES: Final = """
    CREATE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
    CREATE TRIGGER refuses BEFORE INSERT ON messages FOR EACH ROW
    WHEN (NEW.content = 'deux') EXECUTE FUNCTION refuses()
"""
NULL_FOR_THE_SECOND: Final = """
    CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
    CREATE TRIGGER drops BEFORE INSERT ON messages FOR EACH ROW
    WHEN (NEW.content = 'deux') EXECUTE FUNCTION drops()
"""
NO_LOOK: Final[Taken] = ("newer_turn", "IF v_first IS NULL AND v_waiting IS NULL THEN", "IF true THEN")
NO_P0: Final[tuple[Taken, ...]] = (
    ("end_turn", "CASE WHEN t.parts_out > 0 THEN 'answered' ELSE p_state END", "p_state"),
    ("turn_is_sound", "t.parts_out > 0 AND t.state NOT IN ('typing', 'answered')", "false"),
)


def handed_in(
    bridge: Bridge, match: str, texts: Sequence[str] = TEXTS, *, pause: float = 5, action: Action = "say"
) -> Claim:
    """Claim what was written in a match, and hand in a reply of several messages, 3 s apart."""
    claim = bridge.claimed(match)
    rest = [(text, 3.0) for text in texts[1:]]
    bridge.store.finish(claim.turn, claim.token, texts[0], pause=pause, action=action, rest=rest)
    return claim


def begun(bridge: Bridge, *, action: Action = "say") -> tuple[str, int]:
    """Give a match whose first message was answered in part: one message of three is out. The clock stands still."""
    bridge.stop_clock()
    match = bridge.match()
    bridge.write(match, "salut")
    turn = handed_in(bridge, match, pause=0, action=action).turn
    assert said(bridge, match) == ["un"]
    return match, turn


def said(bridge: Bridge, match: str) -> list[str]:
    """Return what the bot said in a match, in the order of the app's times."""
    return [text for sender, text in bridge.messages(match) if sender == CAMILLE]


def task_of(claim: Claim) -> Task:
    """Return the task of a claim."""
    assert claim.outcome.task is not None, claim.outcome
    return claim.outcome.task


def contents(bridge: Bridge) -> int:
    """Return how many texts of parts are kept."""
    return int(bridge.value("SELECT count(content) FROM bridge.parts"))


# P0: once a message is out, the turn ends as answered


def fails_for_good(bridge: Bridge, _match: str, turn: int) -> None:
    """The app's table refuses the second message until no attempt is left."""
    bridge.rows(REFUSES)
    for number in range(MAX_ATTEMPTS):
        assert bridge.turn(turn).attempts == number
        bridge.advance(60)
        bridge.deliver(turn)


def refuses(bridge: Bridge, _match: str, turn: int) -> None:
    """The app takes the second message for one that is not to be said."""
    bridge.rows(NULL_FOR_THE_SECOND)
    bridge.advance(3)
    bridge.deliver(turn)


def is_gone(bridge: Bridge, match: str, turn: int) -> None:
    """The person deletes what was to be answered."""
    bridge.rows("DELETE FROM messages WHERE match_id = %s AND sender_id = %s", match, LEA)
    bridge.advance(3)
    bridge.deliver(turn)


def is_overtaken(bridge: Bridge, match: str, _turn: int) -> None:
    """A newer message is grouped."""
    bridge.write(match, "encore")
    bridge.group()
    assert [each.superseded for each in bridge.store.overtake([match])] == [True]


def is_looked_at(bridge: Bridge, match: str, turn: int) -> None:
    """A newer message is found by the delivery's own look."""
    bridge.write(match, "encore")
    bridge.advance(3)
    assert bridge.deliver(turn).name == "interrupted"


def is_unreadable(bridge: Bridge, _match: str, turn: int) -> None:
    """PostgreSQL refuses to read what the delivery looks at, until no attempt is left."""
    for _ in range(MAX_ATTEMPTS):
        bridge.advance(60)
        bridge.store.unreadable(turn, "deliver", "DatabaseRefused: no")


def at_its_limit(bridge: Bridge) -> None:
    """Count nine calls of today for the person."""
    bridge.rows(
        "INSERT INTO bridge.budgets (day, kind, owner_id, calls)"
        " VALUES ((bridge.now() AT TIME ZONE 'Europe/Paris')::date, 'person', %s, 9)",
        LEA,
    )


def is_held(bridge: Bridge, _match: str, turn: int) -> None:
    """The person is over a limit, and a step holds the turn."""
    at_its_limit(bridge)
    with bridge.policy(limit_calls_person_day=1):
        bridge.value("SELECT bridge.hold_turn(%s)", turn)


ENDS: Final[dict[Callable[[Bridge, str, int], None], str]] = {
    fails_for_good: "failed",
    is_unreadable: "failed",
    refuses: "refused",
    is_gone: "gone",
    is_overtaken: "interrupted",
    is_looked_at: "interrupted",
    is_held: "held",
}


@without(*NO_P0)
@pytest.mark.parametrize("end", ENDS)
def test_P0_whatever_ends_a_reply_that_was_begun_ends_it_as_answered(
    bridge: Bridge, end: Callable[[Bridge, str, int], None]
) -> None:
    """Its messages stay answered, the rest is never said, no text is kept, and nobody can let the turn try again."""
    match, turn = begun(bridge)
    first = bridge.turn(turn).reply_message_id
    end(bridge, match, turn)

    over = bridge.turn(turn)
    assert (over.state, over.reason, over.reply_message_id) == ("answered", ENDS[end], first)
    assert (over.draft, over.due_at, over.answered_at) == (None, None, over.ended_at)
    assert contents(bridge) == 0
    assert bridge.value("SELECT bridge.retry_dead(%s)", turn)["outcome"] == "nothing"
    assert len(bridge.covered(turn)) == 1
    bridge.advance(60)
    assert bridge.deliver(turn).name == "answered"
    assert said(bridge, match) == ["un"]
    assert bridge.value("SELECT bridge.verify(30, 10)")["answered"] == 1


@without(("supersede", "v_said := bridge.end_said(p_turn, 'interrupted');", ""))
@pytest.mark.parametrize("end", [is_overtaken, is_looked_at])
def test_P0_what_was_answered_in_part_is_not_answered_again(
    bridge: Bridge, end: Callable[[Bridge, str, int], None]
) -> None:
    """The next reply answers the newer message, and not what the first messages of the interrupted one answered."""
    match, turn = begun(bridge)
    end(bridge, match, turn)
    assert [line.content for line in task_of(bridge.claimed(match)).messages] == ["encore"]


@without(("deliver_turn", "AND t.parts_out = 0", ""))
def test_P0_a_reply_that_was_begun_is_not_composed_again(bridge: Bridge) -> None:
    """A later message that the app's table refuses is an attempt, and the same text is tried again."""
    match, turn = begun(bridge)
    bridge.rows(REFUSES)
    bridge.advance(3)
    assert bridge.deliver(turn).name == "failed"
    bridge.rows("DROP TRIGGER refuses ON messages")
    assert bridge.deliver(turn).name == "nothing"  # not before its time
    for _ in range(2):
        bridge.advance(3)
        bridge.deliver(turn)
    assert (said(bridge, match), bridge.turn(turn).state, bridge.turn(turn).reason) == ([*TEXTS], "answered", None)


def test_P0_a_reply_that_was_not_begun_is_superseded_as_a_whole(bridge: Bridge) -> None:
    """Its texts are erased, no row of it stays, and its events move on."""
    bridge.stop_clock()
    match = bridge.match()
    first = bridge.write(match, "salut")
    turn = handed_in(bridge, match).turn
    assert contents(bridge) == len(TEXTS)
    second = bridge.write(match, "encore")
    bridge.advance(5)
    assert bridge.deliver(turn).name == "superseded"
    assert bridge.value("SELECT count(*) FROM bridge.parts") == 0
    claim = bridge.claimed(match)
    assert bridge.covered(claim.turn) == [first, second]
    assert (task_of(claim).said, task_of(claim).withheld) == ((), ())


def test_P0_a_draft_that_is_thrown_away_leaves_no_part_behind(bridge: Bridge) -> None:
    """The first message is refused for what it says: another draft, of two messages, takes the place of all three."""
    bridge.stop_clock()
    match = bridge.match()
    bridge.write(match)
    bridge.rows(REFUSES)
    turn = handed_in(bridge, match, ["deux", "un", "trois"], pause=0).turn
    assert bridge.turn(turn).state == "composing"
    bridge.advance(60)
    claim = bridge.claim(turn)
    bridge.store.finish(turn, claim.token, "quatre", pause=0, rest=[("cinq", 0.0)])
    assert bridge.deliver(turn).name == "answered"
    assert said(bridge, match) == ["quatre", "cinq"]
    assert bridge.value("SELECT count(*) FROM bridge.parts") == 2


# P1: parts are rows, once, in order, and apart


def test_P1_the_messages_of_a_reply_are_delivered_once_and_in_order(bridge: Bridge) -> None:
    """The turn covers its message once, its reply is the first message, and it is over with the last one."""
    bridge.stop_clock()
    match = bridge.match()
    message = bridge.write(match)
    turn = handed_in(bridge, match).turn
    planned = bridge.turn(turn).deliver_at
    outcomes = []
    for seconds in (4, 1, 0, 2, 1, 2, 1, 9):
        bridge.advance(seconds)
        outcomes.append(bridge.deliver(turn).name)
    assert outcomes == ["nothing", "part", "nothing", "nothing", "part", "nothing", "answered", "answered"]
    assert said(bridge, match) == [*TEXTS]

    over = bridge.turn(turn)
    first = bridge.value("SELECT id FROM messages WHERE content = 'un'")
    assert (over.reply_message_id, over.deliver_at, over.reason) == (first, planned, None)
    assert (over.answered_at - planned).total_seconds() == 6
    assert contents(bridge) == 0
    counts = bridge.value("SELECT bridge.verify(30, 10)")
    assert (counts["messages"], counts["answered"], counts["unaccounted"], counts["doubled"]) == (1, 1, 0, 0)
    parts = bridge.value("SELECT bridge.why(%s)", message)["turn"]["parts"]
    assert [part["number"] for part in parts] == [1, 2, 3]
    assert all(part["delivered_at"] and part["message_id"] for part in parts)
    assert not any("content" in part for part in parts)


def test_P1_an_operator_sees_each_message_of_a_reply(bridge: Bridge) -> None:
    """`why` tells which are delivered, planned and withheld, with ids and times and without a text."""
    match, turn = begun(bridge)
    story = "SELECT bridge.turn_story(%s)"
    first = bridge.turn(turn).reply_message_id
    told = [words.partition(": ")[2] for _, words in parts_of(bridge.value(story, turn))]
    assert told[0] == f"delivered as {first}"
    assert all(words.startswith("planned for ") for words in told[1:])
    bridge.advance(1)
    is_looked_at(bridge, match, turn)
    told = [words.partition(": ")[2] for _, words in parts_of(bridge.value(story, turn))]
    assert told == [f"delivered as {first}", "withheld", "withheld"]


def test_P1_a_reply_of_one_message_has_no_row_of_parts(bridge: Bridge) -> None:
    """It is stored and delivered as a draft alone."""
    match = bridge.match()
    bridge.write(match)
    turn = handed_in(bridge, match, ["un"], pause=0).turn
    assert bridge.turn(turn).state == "answered"
    assert bridge.value("SELECT count(*) FROM bridge.parts") == 0


@without(("plan_part", "greatest(n.deliver_at, bridge.now() + (n.deliver_at - o.deliver_at))", "n.deliver_at"))
def test_P1_a_late_message_does_not_bring_the_next_one_with_it(bridge: Bridge) -> None:
    """After an hour without a scheduler the pause between two messages is kept."""
    match, turn = begun(bridge)
    bridge.advance(3600)
    assert bridge.deliver(turn).name == "part"
    for seconds, outcome in ((0, "nothing"), (2, "nothing"), (1, "answered")):
        bridge.advance(seconds)
        assert bridge.deliver(turn).name == outcome
    assert said(bridge, match) == [*TEXTS]


@without(("deliver_turn", "t.deliver_at := greatest(t.deliver_at, t.part_at);", ""))
def test_P1_a_doubled_or_early_delivery_says_nothing_more(bridge: Bridge) -> None:
    """`deliver_at` is the first message's and never moves, so it alone would let the second one out at once."""
    match, turn = begun(bridge)
    assert bridge.deliver(turn).name == "nothing"
    assert said(bridge, match) == ["un"]


def test_P1_a_set_says_one_message_of_a_reply(bridge: Bridge) -> None:
    """Without any pause each message is still a transaction of its own, and each call tells that more is due."""
    match = bridge.match()
    bridge.write(match)
    claim = bridge.claimed(match)
    bell = bridge.listen()
    bridge.store.finish(claim.turn, claim.token, "un", pause=0, rest=[("deux", 0.0), ("trois", 0.0)])
    assert ("bridge_due", "") in bell.heard()
    for outcome, more in (("part", True), ("answered", False)):
        done = bridge.store.deliver_due(16, [])
        assert {turn: each.name for turn, each in done.outcomes.items()} == {claim.turn: outcome}
        assert (done.due_in is not None) is more
    assert said(bridge, match) == [*TEXTS]


@without(("deliver_turn", "+ make_interval(secs => 0.001 * t.parts_out)", ""))
def test_P1_the_app_s_times_keep_the_order_though_its_clock_is_ahead(bridge: Bridge) -> None:
    """A reply is stamped after its question; each of its messages a millisecond after the one before it."""
    bridge.stop_clock()
    match = bridge.match()
    ahead = bridge.value("SELECT bridge.now() + interval '1 hour'")
    bridge.rows(DATED, match, LEA, "x", ahead, connection=bridge.people)
    turn = handed_in(bridge, match, pause=0).turn
    for _ in range(2):
        bridge.advance(3)
        bridge.deliver(turn)
    times = bridge.rows(
        "SELECT created_at FROM messages WHERE match_id = %s ORDER BY content = 'x' DESC, content", match
    )
    by_text = dict(bridge.rows("SELECT content, created_at FROM messages WHERE match_id = %s", match))
    assert len(set(times)) == len(times)
    assert sorted(by_text, key=by_text.__getitem__) == ["x", *TEXTS]


@without(
    (
        "known_lines",
        "t.parts IS NOT NULL AND p.turn_id = t.id",
        "t.parts IS NOT NULL AND p.number = 1 AND p.turn_id = t.id",
    )
)
def test_P1_replay_does_not_take_a_later_message_for_a_stranger_s_answer(bridge: Bridge) -> None:
    """What was written without being captured, before the second message of a reply, is owed still."""
    match, turn = begun(bridge)
    bridge.advance(1)
    bridge.rows("SET session_replication_role = replica")
    created = bridge.value("SELECT bridge.now()")
    bridge.rows(DATED, match, LEA, "perdu", created)
    bridge.rows("RESET session_replication_role")
    for _ in range(2):
        bridge.advance(3)
        bridge.deliver(turn)
    bridge.advance(1)
    assert said(bridge, match) == [*TEXTS]
    assert bridge.value("SELECT bridge.replay(NULL, NULL, NULL, 30, 10, false)")["captured"] == 1


def test_P1_an_opener_has_one_message(bridge: Bridge) -> None:
    """A second one would come after a message exists (I4), so the table refuses an opener of several."""
    match = bridge.match(opener=True)
    bridge.group()
    bridge.advance(61)
    bridge.push()
    claim = bridge.claim(bridge.opener(match).id)
    with pytest.raises(Exception, match="23514"):
        bridge.store.finish(claim.turn, claim.token, "un", pause=1, rest=[("deux", 1.0)])
    with bridge.policy(reply_parts=3):
        assert bridge.store.claim(claim.turn, claim.token).details.get("most_parts") is None


def test_P1_a_claim_tells_how_many_messages_the_reply_may_have(bridge: Bridge) -> None:
    """With the pauses between them; nothing is told where policy has one message a reply."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match)
    claim = bridge.claim(turn)
    assert "part_pause" not in claim.outcome.details
    assert task_of(claim).most_parts == 1
    with bridge.policy(reply_parts=3, part_pause_min=1, part_pause_max=2):
        again = bridge.store.claim(turn, claim.token)
    assert again.details["part_pause"] == {"part_pause_min": 1, "part_pause_max": 2}
    assert again.task is not None
    assert again.task.most_parts == 3


# P2: a newer message withholds the rest


@without(NO_LOOK)
@pytest.mark.parametrize("grouped", [True, False])
def test_P2_a_newer_message_withholds_the_rest(bridge: Bridge, grouped: bool) -> None:  # noqa: FBT001
    """Before each message the conversation is looked at, grouped or not; the next turn answers the newer message."""
    match, turn = begun(bridge)
    bridge.advance(3)
    assert bridge.deliver(turn).name == "part"
    bridge.write(match, "stop")
    if grouped:
        bridge.group()
    bridge.advance(3)
    outcome = bridge.deliver(turn)
    assert outcome.name == "interrupted"
    assert (outcome.details["said"], outcome.details["withheld"]) == (2, 1)
    assert bridge.turn(turn).merges == 0
    claim = bridge.claimed(match)
    assert [line.content for line in task_of(claim).messages] == ["stop"]
    assert bridge.turn(claim.turn).merges == 0
    assert said(bridge, match) == ["un", "deux"]


@without(("may_supersede", "OR t.parts_out > 0", ""))
def test_P2_max_merges_does_not_keep_the_rest(bridge: Bridge) -> None:
    """Something was said, so nobody is left without an answer if the rest makes way."""
    match, turn = begun(bridge)
    bridge.write(match, "stop")
    bridge.advance(3)
    assert bridge.deliver(turn, max_merges=0).name == "interrupted"
    assert said(bridge, match) == ["un"]


@without(("may_supersede", "p_policy ->> 'second_message' = 'merge'", "true"))
def test_P2_with_queue_nothing_is_withheld(bridge: Bridge) -> None:
    """The reply is said to its end, and the newer message is answered next."""
    match, turn = begun(bridge)
    bridge.write(match, "stop")
    with bridge.policy(second_message="queue"):
        for _ in range(2):
            bridge.group()
            bridge.store.overtake([match])
            bridge.advance(3)
            bridge.deliver(turn)
    assert said(bridge, match) == [*TEXTS]
    claim = bridge.claimed(match)
    assert [line.content for line in task_of(claim).messages] == ["stop"]
    assert (task_of(claim).said, task_of(claim).withheld) == ((), ())


@without(("may_supersede", "AND (SELECT n.cause FROM bridge.not_now(p_turn) n) IS NULL", ""))
def test_P2_the_rest_is_said_where_the_newer_message_may_not_be_answered_now(bridge: Bridge) -> None:
    """Withheld, it would be said tomorrow at the earliest (E5)."""
    match, turn = begun(bridge)
    bridge.write(match, "stop")
    at_its_limit(bridge)
    with bridge.policy(limit_calls_person_day=1):
        bridge.advance(3)
        assert bridge.deliver(turn).name == "part"
    assert said(bridge, match) == ["un", "deux"]


@without(("deliver_turn", "IF (t.parts_out + 1 < t.parts) IS NOT TRUE THEN", "IF true THEN"))
def test_P2_a_farewell_leaves_with_its_last_message(bridge: Bridge) -> None:
    """The mark is set with the last message of a `leave`; one that is interrupted leaves nothing, and is answered."""
    match, turn = begun(bridge, action="leave")
    assert not bridge.value("SELECT bridge.is_left(%s)", match)
    bridge.write(match, "attends")
    bridge.advance(3)
    assert bridge.deliver(turn).name == "interrupted"
    assert not bridge.value("SELECT bridge.is_left(%s)", match)

    claim = bridge.claimed(match)
    assert task_of(claim).withheld == ("deux", "trois")
    bridge.store.finish(claim.turn, claim.token, "bon", pause=0, action="leave", rest=[("adieu", 3.0)])
    bridge.advance(3)
    assert bridge.deliver(claim.turn).name == "answered"
    assert bridge.value("SELECT bridge.is_left(%s)", match)


# P3: what was said and what was withheld


@without(("end_parts", "SET said = w.said || v_said, withheld = w.withheld || v_withheld", "SET said = w.said"))
@pytest.mark.parametrize("end", [is_overtaken, is_looked_at])
def test_P3_the_next_task_tells_what_was_said_and_what_was_withheld(
    bridge: Bridge, end: Callable[[Bridge, str, int], None]
) -> None:
    """In their order; both are erased when the next turn ends, and a later turn is not told."""
    match, turn = begun(bridge)
    end(bridge, match, turn)
    claim = bridge.claimed(match)
    assert (task_of(claim).said, task_of(claim).withheld) == (("un",), ("deux", "trois"))
    bridge.store.finish(claim.turn, claim.token, "compris", pause=0)
    over = bridge.turn(claim.turn)
    assert (over.state, over.said, over.withheld) == ("answered", None, None)
    bridge.write(match, "bien")
    assert task_of(bridge.claimed(match)).withheld == ()


@without(("supersede", "said = newer.said || older.said, withheld = newer.withheld || older.withheld,", ""))
def test_P3_a_superseding_turn_inherits_them(bridge: Bridge) -> None:
    """A reply that was told of withheld texts, and makes way before it said anything, hands them on."""
    match, turn = begun(bridge)
    is_looked_at(bridge, match, turn)
    claim = bridge.claimed(match)
    assert bridge.finish(claim).name == "typing"
    bridge.write(match, "et")
    bridge.group()
    assert [each.superseded for each in bridge.store.overtake([match])] == [True]
    older = bridge.turn(claim.turn)
    assert (older.said, older.withheld) == (None, None)
    again = task_of(bridge.claimed(match))
    assert [line.content for line in again.messages] == ["encore", "et"]
    assert (again.said, again.withheld) == (("un",), ("deux", "trois"))


@without(("hold_turn", "said = CASE WHEN w.id = t.id THEN w.said ELSE w.said || t.said END,", "said = NULL,"))
def test_P3_a_held_turn_keeps_them(bridge: Bridge) -> None:
    """A turn that is put off until tomorrow tells its responder tomorrow."""
    match, turn = begun(bridge)
    is_looked_at(bridge, match, turn)
    waiting = bridge.pushed(match)
    is_held(bridge, match, waiting)
    assert bridge.turn(waiting).held == "limit_calls"
    assert (bridge.turn(waiting).said, bridge.turn(waiting).withheld) == (["un"], ["deux", "trois"])


@without(("end_turn", "IF v_parts IS NOT NULL THEN", "IF false THEN"))
def test_P3_no_text_outlives_its_turn(bridge: Bridge) -> None:
    """The texts of an answered reply are erased in the transaction that ends it; its rows stay, with ids and times."""
    match, turn = begun(bridge)
    for _ in range(2):
        bridge.advance(3)
        bridge.deliver(turn)
    assert said(bridge, match) == [*TEXTS]
    assert contents(bridge) == 0
    assert bridge.value("SELECT count(*) FROM bridge.parts WHERE delivered_at IS NOT NULL") == len(TEXTS)
    bridge.advance(86400 * 31)
    assert bridge.store.prune(30, 100) == 1
    assert bridge.value("SELECT count(*) FROM bridge.parts") == 0
