"""Who types: the bot's indicator follows its turn, and a group waits for a person who is not done."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest

from bridge_service.install.plan import migrate
from bridge_service.install.uninstall import uninstall
from tests.support.clock import install_clock
from tests.support.databases import DEMO_FOLDER, copy, copy_of, execute
from tests.support.policy import set_policy
from tests.support.roles import OWNER
from tests.support.rules import CAMILLE, GROUPING_DELAY, LEA, Bridge, without

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.demo.servers import PostgresServer
    from tests.support.rules import Claim

TYPING_EVENTS: Final = (DEMO_FOLDER / "typing_events.sql").read_text(encoding="utf-8")
GROUPING_MAX: Final = 60.0
PAUSE: Final = 12.0
"""Seconds until the delivery, of which the last TYPING are typed."""

TYPING: Final = 10.0


@pytest.fixture(scope="session")
def typing_template(postgres: PostgresServer, bridge_template: str) -> str:
    """Give the name of a template of an app with indicators, with the bridge and a clock to move."""
    urls = copy(postgres, bridge_template, "typing_template")
    execute(urls.app, TYPING_EVENTS)
    # As the page has it: the bridge's owner is another role than the app's tables'.
    execute(urls.admin, f"GRANT SELECT, INSERT, UPDATE ON typing_events TO {OWNER}")
    migrate(urls.owner)
    install_clock(urls)
    return "typing_template"


@pytest.fixture
def bridge(request: pytest.FixtureRequest, postgres: PostgresServer, typing_template: str) -> Iterator[Bridge]:
    """Give a fresh bridge; one from which `without` took a rule, if the test asks for it."""
    with copy_of(postgres, typing_template) as urls, closing(Bridge(urls, getattr(request, "param", ()))) as bridge:
        bridge.stop_clock()
        yield bridge


def shown(bridge: Bridge, match: str) -> bool | None:
    """Return whether the bot's indicator is on; None: there is no row."""
    rows = bridge.rows("SELECT is_typing FROM typing_events WHERE match_id = %s AND user_id = %s", match, CAMILLE)
    return rows[0][0] if rows else None


def look(bridge: Bridge) -> float | None:
    """Look at what is due, as a scheduler does."""
    return bridge.store.show_due(50)


def remembered(bridge: Bridge) -> int:
    """Return how many indicators the bridge has to look at."""
    return int(bridge.value("SELECT count(*) FROM bridge.indicators"))


def hand_in(bridge: Bridge, claim: Claim, draft: str = "coucou", *, pause: float = PAUSE) -> None:
    """Hand in a draft, as a worker whose bot shows its indicator."""
    typing = TYPING if claim.outcome.details["bot_typing"] else 0.0
    outcome = bridge.store.finish(claim.turn, claim.token, draft, pause=pause, typing=typing)
    assert outcome.name == "typing", outcome


def typing(bridge: Bridge, match: str) -> int:
    """Bring a reply to where the bot types, and its indicator is on."""
    bridge.write(match)
    claim = bridge.claimed(match, plain=False)
    hand_in(bridge, claim)
    bridge.advance(PAUSE - TYPING)
    look(bridge)
    assert shown(bridge, match)
    return claim.turn


def types(bridge: Bridge, match: str, person: str = LEA, *, on: bool = True, ago: float = 0.0) -> None:
    """Let a person begin or go on to type, or stop, `ago` seconds before now."""
    bridge.rows(
        "INSERT INTO typing_events (match_id, user_id, is_typing, started_at, updated_at)"
        " SELECT %s, %s, %s, n.at, n.at FROM (SELECT bridge.now() - make_interval(secs => %s) AS at) n"
        " ON CONFLICT (match_id, user_id)"
        " DO UPDATE SET is_typing = EXCLUDED.is_typing, updated_at = EXCLUDED.updated_at",
        match,
        person,
        on,
        ago,
    )


def pushed_after(bridge: Bridge, seconds: float) -> int:
    """Let time pass in steps of a second, and return how many turns were pushed."""
    pushes = 0
    for _ in range(round(seconds)):
        bridge.advance(1)
        pushes += len(bridge.push())
    return pushes


# Rule I-1: the indicator never waits for the app, and holds up no reply


@without(("show_typing", "FOR NO KEY UPDATE SKIP LOCKED", "FOR NO KEY UPDATE"))
def test_I_1_a_reply_does_not_wait_for_the_row_of_its_indicator(bridge: Bridge) -> None:
    """A delivery passes over a row that the app holds; the next looks switch the indicator off."""
    match = bridge.match()
    turn = typing(bridge, match)
    bridge.advance(TYPING)
    held = bridge.session()
    bridge.rows("SELECT FROM typing_events FOR UPDATE", connection=held)

    assert bridge.run(lambda store: store.deliver(turn)).result_at_once().name == "answered"
    assert shown(bridge, match)
    bridge.advance(1)
    look(bridge)
    assert shown(bridge, match)
    held.rollback()
    bridge.advance(1)
    look(bridge)

    assert shown(bridge, match) is False
    assert remembered(bridge) == 0


@without(("indicate", "WHEN OTHERS OR assert_failure THEN", "WHEN division_by_zero THEN"))
def test_I_1_what_the_app_s_table_raises_costs_no_reply(bridge: Bridge) -> None:
    """A table of indicators that refuses every change leaves the reply and its turn as they are without one."""
    match = bridge.match()
    turn = typing(bridge, match)
    bridge.rows(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
        "CREATE TRIGGER refuse BEFORE UPDATE ON typing_events FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    bridge.advance(TYPING)

    assert bridge.deliver(turn).name == "answered"
    assert [text for _, text in bridge.messages(match)] == ["salut", "coucou"]


@without(("show_typing", "SET CONSTRAINTS ALL IMMEDIATE;", ""))
def test_I_1_what_a_deferred_trigger_raises_costs_no_reply(bridge: Bridge) -> None:
    """What the app's table would raise at the commit is known while it takes nothing else with it."""
    match = bridge.match()
    turn = typing(bridge, match)
    bridge.rows(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
        "CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON typing_events DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    bridge.advance(TYPING)

    assert bridge.deliver(turn).name == "answered"


@without(("end_typing", "FOR UPDATE SKIP LOCKED", "FOR UPDATE"))
def test_I_1_a_reply_does_not_wait_for_a_look_at_its_indicator(bridge: Bridge) -> None:
    """While a scheduler holds the indicator, the reply is delivered; a look within 4 s switches the indicator off."""
    match = bridge.match()
    turn = typing(bridge, match)
    bridge.advance(TYPING)
    other = bridge.session("postgres")
    bridge.rows("SELECT bridge.show_due(50)", connection=other)

    assert bridge.run(lambda store: store.deliver(turn)).result_at_once().name == "answered"
    other.commit()
    assert shown(bridge, match)
    bridge.advance(4)
    look(bridge)
    assert shown(bridge, match) is False


@without(("show_due", "t.state = 'typing' AND t.typing_at IS NOT NULL", "true"))
def test_I_1_what_a_crash_left_on_goes_off(bridge: Bridge) -> None:
    """An indicator whose turn types no more, however it came to that, goes off at the next look, within 4 s."""
    match = bridge.match()
    turn = typing(bridge, match)
    bridge.rows("UPDATE bridge.turns SET state = 'composing', token = NULL, draft = NULL WHERE id = %s", turn)
    bridge.advance(4)
    look(bridge)

    assert shown(bridge, match) is False
    assert remembered(bridge) == 0


# The bot's indicator


def test_the_indicator_is_on_from_the_end_of_thinking_until_the_reply(bridge: Bridge) -> None:
    """It goes on when the bot begins to type, is renewed every 4 s, and is off in the transaction of the reply."""
    match = bridge.match()
    bridge.write(match)
    claim = bridge.claimed(match)
    hand_in(bridge, claim)
    assert look(bridge) == pytest.approx(PAUSE - TYPING)
    assert shown(bridge, match) is None
    bridge.advance(PAUSE - TYPING)
    assert look(bridge) == pytest.approx(4)
    times = "SELECT started_at, updated_at, bridge.now() FROM typing_events"
    [[started, updated, now]] = bridge.rows(times)
    assert started == updated == now
    bridge.advance(3.9)
    look(bridge)
    assert bridge.rows(times)[0][1] == updated
    bridge.advance(0.1)
    look(bridge)
    [[began, renewed, now]] = bridge.rows(times)
    assert (began, renewed) == (started, now)
    bridge.advance(TYPING - 4)

    assert bridge.store.deliver_due(16, []).outcomes[claim.turn].name == "answered"
    assert shown(bridge, match) is False
    assert remembered(bridge) == 0
    assert look(bridge) is None


@pytest.mark.parametrize("end", ["superseded", "gone", "dead", "dropped"])
def test_every_end_of_a_turn_switches_its_indicator_off(bridge: Bridge, end: str) -> None:
    """Whatever ends a turn that types switches its indicator off in the same call."""
    match = bridge.match()
    turn = typing(bridge, match)
    if end == "superseded":
        bridge.write(match, "encore")
        bridge.group()
        bridge.store.overtake([match])
    elif end == "gone":
        bridge.rows("DELETE FROM messages")
        bridge.advance(TYPING)
        bridge.deliver(turn)
    else:
        state = "dead" if end == "dead" else "cancelled"
        bridge.rows("SELECT bridge.end_turn(%s, %s, %s, 'an error')", turn, state, end)

    assert bridge.turn(turn).state in {"cancelled", "dead"}
    assert shown(bridge, match) is False
    assert remembered(bridge) == 0


def test_an_opener_is_typed_too(bridge: Bridge) -> None:
    """An opener shows the indicator, and a message that cancels the opener switches it off."""
    match = bridge.match(opener=True)
    bridge.group()
    bridge.advance(61)
    bridge.push()
    hand_in(bridge, bridge.claim(bridge.opener(match).id))
    bridge.advance(PAUSE - TYPING)
    look(bridge)
    assert shown(bridge, match)
    bridge.write(match)
    bridge.group()

    assert bridge.opener(match).reason == "message"
    assert shown(bridge, match) is False


def test_an_indicator_that_was_never_on_leaves_no_row(bridge: Bridge) -> None:
    """A turn that ends while the bot thinks touches nothing of the app's table."""
    match = bridge.match()
    bridge.write(match)
    hand_in(bridge, bridge.claimed(match))
    bridge.write(match, "encore")
    bridge.group()
    bridge.store.overtake([match])

    assert shown(bridge, match) is None
    assert remembered(bridge) == 0


def test_a_bot_without_bot_typing_shows_nothing(bridge: Bridge) -> None:
    """With BOT_TYPING=false no indicator goes on, and one that is on goes off at its next renewal."""
    on, off = bridge.match(), bridge.match()
    typing(bridge, on)
    set_policy(bridge.urls, CAMILLE, bot_typing=False)
    bridge.advance(4)
    look(bridge)
    assert shown(bridge, on) is False
    bridge.write(off)
    claim = bridge.claimed(off)
    assert not claim.outcome.details["bot_typing"]
    hand_in(bridge, claim)
    assert bridge.turn(claim.turn).typing_at is None
    assert remembered(bridge) == 0


def test_two_schedulers_show_one_indicator(bridge: Bridge) -> None:
    """A look passes over what another scheduler looks at, and waits for nothing."""
    match = bridge.match()
    bridge.write(match)
    hand_in(bridge, bridge.claimed(match))
    bridge.advance(PAUSE - TYPING)
    other = bridge.session("postgres")
    bridge.rows("SELECT bridge.show_due(50)", connection=other)
    bridge.run(lambda store: store.show_due(50)).result_at_once()
    assert shown(bridge, match) is None
    other.commit()
    assert shown(bridge, match)


def test_a_bell_rings_for_an_indicator_that_is_due_first(bridge: Bridge) -> None:
    """A draft rings if its indicator goes on before the next look, also behind another delivery."""
    first, second = bridge.match(), bridge.match()
    typing(bridge, first)
    bridge.write(second)
    claim = bridge.claimed(second)
    bell = bridge.listen()
    look(bridge)
    hand_in(bridge, claim)
    assert ("bridge_due", "") in bell.heard()


def test_uninstall_switches_the_bots_indicators_off(bridge: Bridge) -> None:
    """The app's table shows no bot as typing after `uninstall`, and what people have in it stays."""
    match = bridge.match()
    typing(bridge, match)
    types(bridge, match)
    assert uninstall(bridge.urls.owner)
    assert shown(bridge, match) is False
    assert bridge.rows("SELECT is_typing FROM typing_events WHERE user_id = %s", LEA) == [(True,)]


# A person who types, and messages without text


@without(("push_due", "PERFORM bridge.keep_open(least(p_limit, v_room));", ""))
def test_I_1_a_person_who_types_keeps_the_group_open(bridge: Bridge) -> None:
    """A due group waits while the person types, and is pushed within 2 s after the row is 5 s old."""
    match = bridge.match()
    bridge.write(match)
    bridge.group()
    bridge.advance(GROUPING_DELAY)
    types(bridge, match)
    assert bridge.push() == []
    [turn] = bridge.turns(match)
    assert turn.due_at == turn.planned_at
    assert pushed_after(bridge, 3) == 0
    types(bridge, match)
    assert pushed_after(bridge, 4) == 0
    assert pushed_after(bridge, 3) == 1
    [turn] = bridge.turns(match)
    assert turn.queued_at >= turn.planned_at


def test_typing_keeps_a_group_open_for_grouping_max_and_no_longer(bridge: Bridge) -> None:
    """A person who never stops is answered GROUPING_MAX after the first message."""
    match = bridge.match()
    bridge.write(match)
    bridge.group()
    bridge.advance(GROUPING_DELAY)
    for _ in range(round(GROUPING_MAX - GROUPING_DELAY)):
        types(bridge, match)
        assert bridge.push() == []
        bridge.advance(1)
    types(bridge, match)
    assert len(bridge.push()) == 1
    [turn] = bridge.turns(match)
    assert (turn.queued_at - turn.opened_at).total_seconds() == pytest.approx(GROUPING_MAX, abs=1)


@pytest.mark.parametrize("row", ["old", "off", "the bot's", "of another match"])
def test_only_the_person_s_own_fresh_row_keeps_the_group_open(bridge: Bridge, row: str) -> None:
    """A row that is 5 s old, off, the bot's or of another match holds nothing up."""
    match = bridge.match()
    bridge.write(match)
    bridge.group()
    bridge.advance(GROUPING_DELAY + 0.1)
    types(
        bridge,
        bridge.match() if row == "of another match" else match,
        CAMILLE if row == "the bot's" else LEA,
        on=row != "off",
        ago=5 if row == "old" else 0,
    )
    assert len(bridge.push()) == 1


def test_a_lock_on_the_app_s_table_holds_up_no_push(bridge: Bridge) -> None:
    """While the app changes its table of indicators, groups are pushed as if no person typed."""
    match = bridge.match()
    bridge.write(match)
    bridge.group()
    bridge.advance(GROUPING_DELAY + 0.1)
    types(bridge, match)
    bridge.impatient()
    held = bridge.session()
    bridge.rows("LOCK TABLE typing_events IN ACCESS EXCLUSIVE MODE", connection=held)
    assert len(bridge.push()) == 1


def voice_note(bridge: Bridge, match: str) -> str:
    """Let a person send a message without text, and return its id."""
    message = str(uuid4())
    bridge.rows("INSERT INTO messages (id, match_id, sender_id) VALUES (%s, %s, %s)", message, match, LEA)
    return message


@without(("textless", "m.content IS NULL", "false"))
def test_a_message_without_text_keeps_the_group_open(bridge: Bridge) -> None:
    """A group waits for the text of a voice note, and is pushed within 2 s after it comes."""
    match = bridge.match()
    message = voice_note(bridge, match)
    bridge.group()
    assert pushed_after(bridge, GROUPING_DELAY + 10) == 0
    bridge.rows("UPDATE messages SET content = 'allo ?' WHERE id = %s", message)
    assert pushed_after(bridge, 2) == 1
    [turn] = bridge.turns(match)
    task = bridge.claim(turn.id).outcome.task
    assert task is not None
    assert [line.content for line in task.messages] == ["allo ?"]


def test_a_message_whose_text_never_comes_is_answered_as_empty(bridge: Bridge) -> None:
    """GROUPING_MAX after the first message its group is pushed, and the responder is told an empty text."""
    match = bridge.match()
    bridge.write(match, "ecoute")
    voice_note(bridge, match)
    bridge.group()
    assert pushed_after(bridge, GROUPING_MAX - 1) == 0
    assert pushed_after(bridge, 2) == 1
    [turn] = bridge.turns(match)
    task = bridge.claim(turn.id).outcome.task
    assert task is not None
    assert [line.content for line in task.messages] == ["ecoute", ""]


# GROUPING_MODE


def burst(bridge: Bridge, match: str, messages: int, apart: float) -> Any:  # noqa: ANN401 - a namedtuple
    """Write messages `apart` seconds apart, each grouped at once, and return the turn."""
    for number in range(messages):
        bridge.advance(apart if number else 0)
        bridge.write(match, f"{number}")
        bridge.group()
        assert bridge.push() == []
    [turn] = bridge.turns(match)
    return turn


@without(("group_events", "OR waiting.state = 'open' AND b.policy ->> 'grouping_mode' = 'sliding'", ""))
def test_a_sliding_window_counts_from_the_last_message(bridge: Bridge) -> None:
    """With GROUPING_MODE=sliding a group closes GROUPING_DELAY after its last message."""
    set_policy(bridge.urls, grouping_mode="sliding")
    turn = burst(bridge, bridge.match(), 4, 10)
    assert (turn.due_at - turn.opened_at).total_seconds() == pytest.approx(30 + GROUPING_DELAY, abs=1)
    assert turn.planned_at == turn.due_at


def test_a_sliding_window_ends_after_grouping_max(bridge: Bridge) -> None:
    """However long a burst lasts, its group closes GROUPING_MAX after the first message."""
    set_policy(bridge.urls, grouping_mode="sliding")
    turn = burst(bridge, bridge.match(), 6, 10)
    assert (turn.due_at - turn.opened_at).total_seconds() == pytest.approx(GROUPING_MAX, abs=1)


def test_a_sliding_window_counts_a_burst_that_is_grouped_at_once(bridge: Bridge) -> None:
    """Messages that one look finds together count from the last of them."""
    set_policy(bridge.urls, grouping_mode="sliding")
    match = bridge.match()
    bridge.write(match)
    bridge.advance(10)
    bridge.write(match)
    bridge.group()
    [turn] = bridge.turns(match)
    assert (turn.due_at - turn.opened_at).total_seconds() == pytest.approx(10 + GROUPING_DELAY, abs=1)


def test_a_fixed_window_counts_from_the_first_message(bridge: Bridge) -> None:
    """Without GROUPING_MODE later messages move nothing."""
    turn = burst(bridge, bridge.match(), 3, 5)
    assert (turn.due_at - turn.opened_at).total_seconds() == pytest.approx(GROUPING_DELAY)
