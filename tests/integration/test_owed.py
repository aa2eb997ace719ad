"""What is owed: `verify` misses exactly what `replay` brings back, and after `replay` it misses nothing."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest

from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import Accounts, Ledger, Replayed
from tests.support.clock import install_clock
from tests.support.roles import SERVICE
from tests.support.rules import CAMILLE, HUGO, LEA, PAUL, Bridge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.roles import Urls

RETENTION_DAYS: Final = 30.0


@pytest.fixture
def bridge(bridge_database: Urls) -> Iterator[Bridge]:
    """Give a bridge that was installed ten days ago, and a clock to move."""
    install_clock(bridge_database)
    with closing(Bridge(bridge_database, ())) as bridge:
        bridge.rows("UPDATE bridge.installation SET installed_at = now() - interval '10 days'")
        yield bridge


@pytest.fixture
def ledger(bridge: Bridge) -> Iterator[Ledger]:
    """Give the operator's hands."""
    with closing(Connection(bridge.urls.service, application="operator")) as connection:
        yield Ledger(connection)


def _verify(ledger: Ledger) -> Accounts:
    return ledger.verify(RETENTION_DAYS)


def _replay(ledger: Ledger, *, dry_run: bool = False) -> Replayed:
    return ledger.replay(None, None, None, retention_days=RETENTION_DAYS, dry_run=dry_run)


def _human(bridge: Bridge, match: str, bot: str = CAMILLE) -> None:
    """Answer by hand, in the bot's name."""
    bridge.write(match, "c'est moi", sender=bot)


def _is_owed(bridge: Bridge, ledger: Ledger, match: str, messages: list[str]) -> None:
    """Assert that `verify` misses exactly these, that `replay` brings them back, and that one answer covers them."""
    before = _verify(ledger)
    assert before.unaccounted == len(messages)
    assert {fault.message_id for fault in before.faults} == set(messages)
    dry = _replay(ledger, dry_run=True)
    done = _replay(ledger)
    assert dry.found + dry.given_back == done.captured + done.given_back == len(messages)
    assert _verify(ledger).unaccounted == 0
    again = _replay(ledger)
    assert (again.found, again.captured, again.given_back) == (0, 0, 0)
    turn = bridge.typing(match)
    assert set(messages) <= set(bridge.covered(turn))
    assert bridge.deliver(turn).name == "answered"
    assert (_verify(ledger).unaccounted, _verify(ledger).doubled) == (0, 0)


def _is_not_owed(ledger: Ledger) -> None:
    """Assert that `verify` misses nothing and that `replay` finds nothing."""
    assert _verify(ledger).unaccounted == 0
    done = _replay(ledger)
    assert (done.found, done.captured, done.given_back) == (0, 0, 0)


@pytest.fixture(params=["answered by hand", "answered by nobody"])
def by_hand(request: pytest.FixtureRequest) -> bool:
    """Tell whether a human answers as the bot meanwhile."""
    return bool(request.param == "answered by hand")


def test_a_profile_that_was_no_bot_for_a_while(bridge: Bridge, ledger: Ledger, *, by_hand: bool) -> None:
    """What came while `is_bot` was false is owed, unless a human answered it as the bot."""
    match = bridge.match()
    bridge.write(match)
    assert bridge.deliver(bridge.typing(match)).name == "answered"
    bridge.rows("UPDATE profiles SET is_bot = false WHERE id = %s", CAMILLE)
    message = bridge.write(match)
    if by_hand:
        _human(bridge, match)
    bridge.rows("UPDATE profiles SET is_bot = true WHERE id = %s", CAMILLE)
    if by_hand:
        _is_not_owed(ledger)
    else:
        _is_owed(bridge, ledger, match, [message])


def test_only_what_came_after_the_human_s_answer_is_owed(bridge: Bridge, ledger: Ledger) -> None:
    """A human's answer covers what stands before it, and a reply of the bridge's own covers nothing but its own."""
    match = bridge.match()
    bridge.rows("ALTER TABLE messages DISABLE TRIGGER bridge_after_message")
    bridge.write(match)
    _human(bridge, match)
    after = bridge.write(match)
    bridge.rows("ALTER TABLE messages ENABLE TRIGGER bridge_after_message")
    bridge.write(match)
    assert bridge.deliver(bridge.typing(match)).name == "answered"
    _is_owed(bridge, ledger, match, [after])


def test_a_bot_that_is_made_later(bridge: Bridge, ledger: Ledger, *, by_hand: bool) -> None:
    """Two people write to each other, and then one of them becomes a bot."""
    match = bridge.match(LEA, HUGO)
    first, second = bridge.write(match), bridge.write(match)
    if by_hand:
        _human(bridge, match, HUGO)
    bridge.rows("UPDATE profiles SET is_bot = true WHERE id = %s", HUGO)
    if by_hand:
        _is_not_owed(ledger)
    else:
        _is_owed(bridge, ledger, match, [first, second])


def test_a_profile_that_was_missing(bridge: Bridge, ledger: Ledger, *, by_hand: bool) -> None:
    """An app without foreign keys writes the message first and the bot's profile later."""
    bridge.rows("""
        ALTER TABLE matches DROP CONSTRAINT matches_user1_id_fkey, DROP CONSTRAINT matches_user2_id_fkey;
        ALTER TABLE messages DROP CONSTRAINT messages_sender_id_fkey;
    """)
    bot = str(uuid4())
    match = bridge.match(LEA, bot)
    message = bridge.write(match)
    if by_hand:
        _human(bridge, match, bot)
    bridge.rows("INSERT INTO profiles VALUES (%s, 'Zoé', true)", bot)
    if by_hand:
        _is_not_owed(ledger)
    else:
        _is_owed(bridge, ledger, match, [message])


def test_members_that_change(bridge: Bridge, ledger: Ledger, *, by_hand: bool) -> None:
    """A match between two people gets another member, a bot; an answer of the member before counts."""
    match = bridge.match(LEA, HUGO)
    message = bridge.write(match)
    if by_hand:
        _human(bridge, match, HUGO)
    bridge.rows("UPDATE matches SET user2_id = %s WHERE id = %s", PAUL, match)
    if by_hand:
        _is_not_owed(ledger)
    else:
        _is_owed(bridge, ledger, match, [message])


def test_a_capture_that_was_off(bridge: Bridge, ledger: Ledger, *, by_hand: bool) -> None:
    """What came while the triggers were disabled is owed, unless the app answered by hand."""
    match, other = bridge.match(), bridge.match(HUGO)
    bridge.rows("ALTER TABLE messages DISABLE TRIGGER USER")
    message = bridge.write(match)
    bridge.write(other, sender=HUGO)
    _human(bridge, other)
    if by_hand:
        _human(bridge, match)
    bridge.rows("ALTER TABLE messages ENABLE TRIGGER USER")
    if by_hand:
        _is_not_owed(ledger)
    else:
        _is_owed(bridge, ledger, match, [message])


GONE: Final = {
    "no bot for a while": (
        "UPDATE profiles SET is_bot = false WHERE id = '{bot}'",
        "UPDATE profiles SET is_bot = true WHERE id = '{bot}'",
    ),
    "members that change and change back": (
        "UPDATE matches SET user2_id = '{hugo}' WHERE id = '{match}'",
        "UPDATE matches SET user2_id = '{bot}' WHERE id = '{match}'",
    ),
    "another bot": (
        "UPDATE matches SET user2_id = '{hugo}' WHERE id = '{match}'",
        "UPDATE matches SET user2_id = '{paul}' WHERE id = '{match}'",
    ),
    "a message that is restored": (
        "CREATE TABLE kept AS SELECT * FROM messages; DELETE FROM messages",
        "INSERT INTO messages SELECT * FROM kept",
    ),
}


@pytest.mark.parametrize("step", ["claim", "deliver"])
@pytest.mark.parametrize("how", GONE)
def test_a_conversation_that_was_gone_and_is_back(
    bridge: Bridge, ledger: Ledger, how: str, step: str, *, by_hand: bool
) -> None:
    """A turn cancelled as `gone` is owed once its conversation is there again, unless it was answered meanwhile."""
    match = bridge.match()
    message = bridge.write(match)
    turn = bridge.pushed(match) if step == "claim" else bridge.typing(match)
    away, back = (statement.format(bot=CAMILLE, hugo=HUGO, paul=PAUL, match=match) for statement in GONE[how])
    bridge.rows(away)
    outcome = bridge.claim(turn).outcome if step == "claim" else bridge.deliver(turn)
    assert outcome.details.get("reason") == "gone"
    _is_not_owed(ledger)
    if by_hand:
        _human(bridge, match)
    bridge.rows(back)
    if by_hand:
        _is_not_owed(ledger)
    else:
        _is_owed(bridge, ledger, match, [message])


def test_what_is_gone_for_good_is_not_owed(bridge: Bridge, ledger: Ledger) -> None:
    """Nor is what an operator dropped, or what is too old by the day on which its conversation comes back."""
    gone, dropped, old = bridge.match(), bridge.match(HUGO), bridge.match()
    for match, who in ((gone, LEA), (dropped, HUGO), (old, LEA)):
        bridge.write(match, sender=who)
    bridge.rows("UPDATE matches SET user2_id = %s WHERE id IN (%s, %s)", HUGO, gone, old)
    bridge.group()
    bridge.advance(16)
    for push in bridge.push():
        bridge.claim(push.turn_id)
    bridge.rows(
        "UPDATE bridge.turns SET state = 'cancelled', reason = 'dropped', due_at = NULL, ended_at = now(), token = NULL"
        " WHERE match_id = %s",
        dropped,
    )
    bridge.advance(16 * 86_400)
    bridge.rows("UPDATE matches SET user2_id = %s WHERE id = %s", CAMILLE, old)
    _is_not_owed(ledger)
    assert _verify(ledger).cancelled == 3


def test_two_replays_at_once_give_back_once(bridge: Bridge, ledger: Ledger) -> None:
    """A second replay that waited for the first one finds nothing left to do, and the message is answered once."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match)
    bridge.rows("UPDATE profiles SET is_bot = false WHERE id = %s", CAMILLE)
    assert bridge.claim(turn).outcome.name == "cancelled"
    bridge.rows("UPDATE profiles SET is_bot = true WHERE id = %s", CAMILLE)
    call = "SELECT bridge.replay(NULL, NULL, NULL, 30, 100, false)"
    first, second = bridge.session(SERVICE), bridge.connect(SERVICE)
    [[answer]] = bridge.rows(call, connection=first)
    assert answer["given_back"] == 1
    bridge.rows("ALTER FUNCTION bridge.replay SET lock_timeout = '30s'")
    waiting = bridge.execute(second, call)
    waiting.until_waiting()
    first.commit()
    waiting.result()
    assert bridge.deliver(bridge.typing(match)).name == "answered"
    _is_not_owed(ledger)


def test_what_was_set_aside_and_answered_by_hand_is_not_answered_again(bridge: Bridge, ledger: Ledger) -> None:
    """`replay` ends such an event as `taken_over`, and gives the others back."""
    match, other = bridge.match(), bridge.match(HUGO)
    bridge.write(match)
    bridge.write(other, sender=HUGO)
    for each in (match, other):
        bridge.store.set_aside(each, "22008 out of range")
    _human(bridge, match)
    assert _verify(ledger).unaccounted == 2
    assert _replay(ledger).given_back == 2
    assert _verify(ledger).unaccounted == 0
    assert [(turn.state, turn.reason) for turn in bridge.turns(match)] == [("cancelled", "taken_over")]
    assert bridge.deliver(bridge.typing(other)).name == "answered"
