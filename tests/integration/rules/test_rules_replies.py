"""Rule H4 as far as it is built: silence, and a bot that leaves a conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest

from tests.support.roles import SERVICE
from tests.support.rules import CAMILLE, GROUPING_DELAY, LEA, Bridge, without

if TYPE_CHECKING:
    from bridge_service.machine.answers import Outcome
    from bridge_service.turns import Action

FINISH: Final = "SELECT bridge.finish(%s, %s, %s, 0, p_action => %s)"
REFUSES: Final = """
    CREATE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
    CREATE TRIGGER refuses BEFORE INSERT ON messages FOR EACH ROW
    WHEN (NEW.content = 'adieu') EXECUTE FUNCTION refuses()
"""


REPLACED: Final = """
    CREATE OR REPLACE FUNCTION bridge.persona(p_bot uuid) RETURNS text LANGUAGE sql STABLE AS
    $$ SELECT 'bot ' || p_bot $$;
    CREATE OR REPLACE FUNCTION bridge.profile(p_profile uuid) RETURNS jsonb LANGUAGE sql STABLE AS
    $$ SELECT jsonb_build_object('id', p_profile) $$
"""
REPLACED_BY_A_LIST: Final = """
    CREATE OR REPLACE FUNCTION bridge.profile(p_profile uuid) RETURNS jsonb LANGUAGE sql STABLE AS
    $$ SELECT '[1]'::jsonb $$;
    UPDATE bridge.bots SET persona = 'x' WHERE scope = 'default'
"""


def answer(bridge: Bridge, match: str, draft: str, action: Action) -> tuple[int, Outcome]:
    """Claim what was written in a match and hand in a draft: the turn, and how it ended."""
    claim = bridge.claimed(match)
    return claim.turn, bridge.store.finish(claim.turn, claim.token, draft, pause=0, action=action)


def left(bridge: Bridge, match: str) -> bool:
    """Tell whether the bot has left a match."""
    return bool(bridge.value("SELECT bridge.is_left(%s)", match))


def verified(bridge: Bridge) -> dict[str, int]:
    """Return what `verify` counts, except what it counts none of."""
    counted: dict[str, int] = bridge.value("SELECT bridge.verify(30, 10) - 'faults'")
    return {name: number for name, number in counted.items() if number}


# Silence


def test_a_silence_answers_without_a_text(bridge: Bridge) -> None:
    """The turn is answered with that reason, nothing is inserted, and nothing waits, is doubled or comes back."""
    matches = [bridge.match() for _ in range(2)]
    messages = [bridge.write(match) for match in matches]
    for match in matches:
        turn, outcome = answer(bridge, match, "", "silence")
        assert (outcome.name, outcome.details["message_id"]) == ("answered", None)
        silent = bridge.turn(turn)
        assert (silent.state, silent.reason, silent.reply_message_id) == ("answered", "silence", None)
        assert (silent.draft, silent.due_at, silent.answered_at) == (None, None, silent.ended_at)
        assert [sender for sender, _ in bridge.messages(match)] == [LEA]
    assert verified(bridge) == {"messages": 2, "answered": 2}
    replayed = bridge.value("SELECT bridge.replay(NULL, NULL, NULL, 30, 10, false)")
    assert {replayed[name] for name in ("found", "captured", "given_back")} == {0}
    assert bridge.value("SELECT bridge.why(%s)", messages[0])["turn"]["reason"] == "silence"


@without(("end_turn", "AND p_reason IS DISTINCT FROM 'silence'", ""))
def test_H4_a_silence_has_no_reply_s_id(bridge: Bridge) -> None:
    """No id names a message that was never inserted; asked again with the same token, the answer is the same."""
    match = bridge.match()
    bridge.write(match)
    claim = bridge.claimed(match)
    for _ in range(2):
        outcome = bridge.store.finish(claim.turn, claim.token, "", pause=0, action="silence")
        assert (outcome.name, outcome.details["message_id"]) == ("answered", None)


@without(("newer_turn", "IF v_first IS NULL AND v_waiting IS NULL THEN", "IF true THEN"))
def test_D1_a_silence_makes_way_for_a_newer_message(bridge: Bridge) -> None:
    """The same last look as before a reply: its responder never saw the newer message."""
    match = bridge.match()
    first = bridge.write(match)
    claim = bridge.claimed(match)
    second = bridge.write(match, "encore là ?")

    outcome = bridge.store.finish(claim.turn, claim.token, "", pause=0, action="silence")

    assert outcome.name == "superseded"
    bridge.group()
    assert bridge.covered(bridge.turns(match)[-1].id) == [first, second]


def test_a_silent_opener_is_over(bridge: Bridge) -> None:
    """The match gets no other opener, and the first message is answered as usual."""
    match = bridge.match(opener=True)
    bridge.group()
    bridge.advance(61)
    bridge.push()
    claim = bridge.claim(bridge.opener(match).id)
    bridge.store.finish(claim.turn, claim.token, "", pause=0, action="silence")
    assert bridge.deliver(claim.turn).name == "answered"
    bridge.group()
    bridge.push()
    assert (bridge.opener(match).state, bridge.opener(match).reason) == ("answered", "silence")
    assert bridge.messages(match) == []
    bridge.write(match)
    assert bridge.deliver(bridge.typing(match)).name == "answered"


# Leave


@without(("deliver_turn", "IF t.action = 'leave' THEN", "IF false THEN"))
@pytest.mark.parametrize("draft", ["adieu", ""], ids=["with a word", "without"])
def test_H4_a_bot_that_left_answers_nothing_until_it_is_resumed(bridge: Bridge, draft: str) -> None:
    """What is written then is captured and cancelled as `left` at once; what comes after `resume` is answered."""
    match = bridge.match()
    bridge.write(match)
    turn, _ = answer(bridge, match, draft, "leave")
    assert [text for sender, text in bridge.messages(match) if sender == CAMILLE] == [draft] * bool(draft)
    assert (bridge.turn(turn).state, bridge.turn(turn).action) == ("answered", "leave")

    later = [bridge.write(match), bridge.write(match)]
    grouped = bridge.group()
    assert [(event.state, event.due_at, event.place) for event in grouped] == [
        ("cancelled", None, 1),
        ("cancelled", None, 2),
    ]
    ignored = bridge.turns(match)[-1]
    assert (ignored.state, ignored.reason, bridge.covered(ignored.id)) == ("cancelled", "left", later)
    bridge.advance(GROUPING_DELAY + 1)
    assert bridge.push() == []

    assert bridge.value("SELECT bridge.resume(%s)", match) is True
    assert bridge.value("SELECT bridge.resume(%s)", match) is False
    assert bridge.group() == []
    after = bridge.write(match, "et maintenant ?")
    assert bridge.deliver(bridge.typing(match)).name == "answered"
    assert bridge.covered(bridge.turns(match)[-1].id) == [after]
    assert verified(bridge) == {"messages": 4, "answered": 2, "cancelled": 2}


def test_a_bot_that_left_one_conversation_answers_in_the_others(bridge: Bridge) -> None:
    """In one batch, messages of the one end as `left` and messages of the other open a turn."""
    one, other = bridge.match(), bridge.match()
    bridge.write(one)
    answer(bridge, one, "adieu", "leave")
    bridge.write(one)
    bridge.write(other)
    assert {event.match_id: event.state for event in bridge.group()} == {one: "cancelled", other: "open"}


@without(("leave", "IF FOUND THEN", "IF false THEN"))
def test_H4_what_waits_ends_when_the_bot_leaves(bridge: Bridge) -> None:
    """At MAX_MERGES the reply goes out past a message that waits: no worker is asked for that one."""
    match = bridge.match()
    bridge.write(match)
    claim = bridge.claimed(match)
    bridge.write(match, "attends")
    bridge.group()
    with bridge.policy(max_merges=0):
        outcome = bridge.store.finish(claim.turn, claim.token, "adieu", pause=0, action="leave")
    assert outcome.name == "answered"
    assert (bridge.turns(match)[-1].state, bridge.turns(match)[-1].reason) == ("cancelled", "left")


@without(("task", "IF bridge.is_left(t.match_id) THEN", "IF false THEN"))
def test_H4_a_turn_that_was_opened_while_the_bot_left_is_not_composed(bridge: Bridge) -> None:
    """A scheduler that did not see the mark yet opens a turn; its claim sees it."""
    match = bridge.match()
    bridge.write(match)
    claim = bridge.claimed(match)
    worker = bridge.session(SERVICE)
    bridge.rows(FINISH, claim.turn, str(claim.token), "adieu", "leave", connection=worker)
    bridge.write(match, "attends")
    [grouped] = bridge.group()
    assert grouped.state == "open"
    worker.commit()

    bridge.advance(GROUPING_DELAY + 1)
    bridge.push()
    outcome = bridge.claim(grouped.turn_id).outcome
    assert (outcome.name, outcome.details.get("reason")) == ("cancelled", "left")


@without(
    (
        "prune",
        "DELETE FROM bridge.incidents",
        "DELETE FROM bridge.pauses WHERE since < v_before; DELETE FROM bridge.incidents",
    )
)
def test_H4_the_mark_outlives_retention(bridge: Bridge) -> None:
    """The turn that left is deleted after the retention, the mark is not; it goes with its match."""
    match = bridge.match()
    bridge.write(match)
    answer(bridge, match, "adieu", "leave")
    bridge.advance(31 * 86400)
    assert bridge.store.prune(30, 100) == 1
    assert left(bridge, match)
    bridge.rows("DELETE FROM messages; DELETE FROM matches WHERE id = %s", match)
    bridge.value("SELECT bridge.forget_matches(%s::uuid[])", [match])
    assert not left(bridge, match)


def test_H4_a_last_word_that_is_not_delivered_leaves_nothing(bridge: Bridge) -> None:
    """The mark and the reply are one transaction: the table refuses the words, and the bot has not left."""
    bridge.rows(REFUSES)
    match = bridge.match()
    bridge.write(match)
    turn, outcome = answer(bridge, match, "adieu", "leave")
    assert (outcome.name, bridge.turn(turn).state) == ("failed", "composing")
    assert not left(bridge, match)


def test_a_worker_of_the_version_before_says_what_it_hands_in(bridge: Bridge) -> None:
    """Its call names no action."""
    match = bridge.match()
    bridge.write(match)
    claim = bridge.claimed(match)
    [[outcome]] = bridge.step("SELECT bridge.finish(%s, %s, %s, %s)", claim.turn, str(claim.token), "coucou", 0)
    assert (outcome["outcome"], bridge.turn(claim.turn).action) == ("answered", "say")


# The task


def test_a_task_tells_what_policy_says_of_its_bot(bridge: Bridge) -> None:
    """Persona, model, bounds and local time are the bot's own; without any, the bounds are the built in ones."""
    match = bridge.match()
    bridge.write(match)
    plain = bridge.claimed(match)
    assert plain.outcome.task is not None
    assert (plain.outcome.task.persona, plain.outcome.task.model.name) == ("", None)
    assert (plain.outcome.task.model.max_tokens, plain.outcome.task.model.history_tokens) == (400, 4000)
    bridge.finish(plain, pause=0)

    bridge.rows(
        "INSERT INTO bridge.bots (scope, bot_id, persona, openai_model, openai_fallback_model, openai_temperature,"
        " openai_max_tokens, openai_history_tokens, timezone)"
        " VALUES ('bot', %s, 'Tu es Camille.', 'a', 'b', 0.5, 9, 8, 'Asia/Kathmandu')",
        CAMILLE,
    )
    bridge.write(match)
    task = bridge.claimed(match).outcome.task
    assert task is not None
    assert task.persona == "Tu es Camille."
    assert (task.model.name, task.model.fallback, task.model.temperature) == ("a", "b", 0.5)
    assert (task.model.max_tokens, task.model.history_tokens) == (9, 8)
    assert task.local_time is not None
    assert str(task.local_time.utcoffset()) == "5:45:00"
    now = bridge.value("SELECT bridge.now()")
    assert abs((now - task.local_time).total_seconds()) < 60
    assert task.matched_at == bridge.value("SELECT created_at FROM matches WHERE id = %s", match)


def test_the_app_tells_personas_and_profiles(bridge: Bridge) -> None:
    """By default nothing of a profile is told; what is no object tells nothing; an operator's persona comes first."""
    match = bridge.match()
    told = []
    for statement in (
        "",
        REPLACED,
        REPLACED_BY_A_LIST,
    ):
        if statement:
            bridge.rows(statement)
        bridge.write(match)
        claim = bridge.claimed(match)
        task = claim.outcome.task
        assert task is not None
        told.append((task.persona, dict(task.bot_profile), dict(task.person_profile)))
        bridge.finish(claim, pause=0)
    assert told == [("", {}, {}), (f"bot {CAMILLE}", {"id": CAMILLE}, {"id": LEA}), ("x", {}, {})]


def test_a_default_profile_costs_no_call(bridge: Bridge) -> None:
    """PostgreSQL makes the default functions constants of the statement that calls them."""
    for function in ("persona", "profile"):
        plan = "\n".join(
            line for (line,) in bridge.rows(f"EXPLAIN (VERBOSE, COSTS off) SELECT bridge.{function}(%s)", str(uuid4()))
        )
        assert f"bridge.{function}" not in plan
