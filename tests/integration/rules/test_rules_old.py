"""The one age rule: what an app dates further back than IGNORE_OLDER_DAYS is kept as an event and never answered."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import psycopg2
import pytest

from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import Ledger
from tests.support.roles import OWNER
from tests.support.rules import CAMILLE, HUGO, LEA, PAUL, Bridge, without

if TYPE_CHECKING:
    from collections.abc import Iterator

RETENTION_DAYS: Final = 30.0
WRITE_AT: Final = "INSERT INTO messages (id, match_id, sender_id, content, created_at) VALUES (%s, %s, %s, 'salut', %s)"
NOBODY_DECIDES: Final = (
    "is_old",
    "p_created_at < v_now - make_interval",
    "p_created_at > 'infinity'::timestamptz - make_interval",
)


@pytest.fixture
def ledger(bridge: Bridge) -> Iterator[Ledger]:
    """Give the operator's hands."""
    with closing(Connection(bridge.urls.service, application="operator")) as connection:
        yield Ledger(connection)


def _write(bridge: Bridge, match: str, time: str | None, *, sender: str = LEA, connection: Any = None) -> str:  # noqa: ANN401
    message = str(uuid4())
    bridge.rows(WRITE_AT, message, match, sender, time, connection=connection or bridge.people)
    return message


def _ago(bridge: Bridge, span: str) -> str:
    return str(bridge.value("SELECT (bridge.now() - %s::interval)::text", span))


def _state(bridge: Bridge, message: str) -> tuple[Any, ...]:
    [row] = bridge.rows(
        "SELECT t.state, t.reason FROM bridge.events e LEFT JOIN bridge.turns t ON t.id = e.turn_id"
        " WHERE e.message_id = %s",
        message,
    )
    return row


@without(NOBODY_DECIDES)
@pytest.mark.parametrize("time", ["15 days 1 minute", "2 years", "-infinity", "0044-03-15 12:00+00 BC"])
def test_an_old_message_is_kept_and_not_answered(bridge: Bridge, ledger: Ledger, time: str) -> None:
    """Its event has a turn of its own that is cancelled as `old`; it rings no bell, and `verify` counts it."""
    match = bridge.match()
    bell = bridge.listen()
    message = _write(bridge, match, time if "infinity" in time or "BC" in time else _ago(bridge, time))
    assert _state(bridge, message) == ("cancelled", "old")
    assert bell.heard() == []
    assert bridge.group() == []
    accounts = ledger.verify(RETENTION_DAYS)
    assert (accounts.messages, accounts.cancelled, accounts.unaccounted) == (1, 1, 0)


@without(
    (
        "is_old",
        "IF (p_created_at < v_now - interval '1 second') IS NOT TRUE THEN RETURN false; END IF; RETURN EXISTS",
        "RETURN true OR EXISTS",
    )
)
@pytest.mark.parametrize("time", [None, "infinity", "294276-12-31 23:59:59+00", "2099-01-01 00:00+00", "young"])
def test_what_has_no_age_is_not_old(bridge: Bridge, time: str | None) -> None:
    """A message without a time, of the future, or just young enough is answered."""
    match = bridge.match()
    message = _write(bridge, match, _ago(bridge, "14 days 23 hours") if time == "young" else time)
    assert bridge.covered(bridge.pushed(match)) == [message]


@without(("is_old", "p.ignore_older_days > 0 AND", ""))
@pytest.mark.parametrize("scope", ["environment", "default"])
def test_0_days_ignore_nothing(bridge: Bridge, scope: str) -> None:
    """IGNORE_OLDER_DAYS=0 has a message of 2019 answered, and a match of 2019 get its first word."""
    bridge.rows("UPDATE bridge.bots SET ignore_older_days = 0 WHERE scope = %s", scope)
    match = bridge.match()
    message = _write(bridge, match, "2019-05-01")
    bridge.rows("INSERT INTO matches VALUES (%s, %s, %s, '2019-05-01')", str(uuid4()), HUGO, CAMILLE)
    assert [event.kind for event in bridge.group()] == ["message", "match"]
    assert bridge.covered(bridge.turns(match)[0].id) == [message]


@without(NOBODY_DECIDES)
def test_an_old_match_gets_no_first_word(bridge: Bridge) -> None:
    """A match of 2023 that is inserted today is kept, cancelled as `old`, and stays silent for ever."""
    match = str(uuid4())
    bell = bridge.listen()
    bridge.rows("INSERT INTO matches VALUES (%s, %s, %s, '2023-02-14')", match, LEA, CAMILLE, connection=bridge.people)
    assert bell.heard() == []
    assert bridge.group() == []
    assert (bridge.opener(match).state, bridge.opener(match).reason) == ("cancelled", "old")
    assert bridge.value("SELECT bridge.capture_match(%s, %s, %s, now())", match, LEA, CAMILLE) is None
    bridge.write(match)
    assert bridge.deliver(bridge.typing(match)).name == "answered"


@without(NOBODY_DECIDES)
def test_an_old_message_touches_nothing_that_is_under_way(bridge: Bridge) -> None:
    """It supersedes no reply, joins no group, and wakes nobody; a message of today is answered as ever."""
    match = bridge.match()
    first = bridge.write(match)
    turn = bridge.typing(match)
    before = bridge.rows("SELECT * FROM bridge.turns")
    old = _write(bridge, match, _ago(bridge, "1 year"))
    assert bridge.rows("SELECT * FROM bridge.turns WHERE reason IS DISTINCT FROM 'old'") == before
    assert bridge.deliver(turn).name == "answered"
    assert bridge.covered(turn) == [first]
    second = bridge.write(match)
    assert bridge.covered(bridge.pushed(match)) == [second]
    assert _state(bridge, old) == ("cancelled", "old")


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_old_messages_fail_no_app(bridge: Bridge, isolation: str) -> None:
    """An app under any isolation writes old and new messages in one transaction while the scheduler works."""
    match = bridge.match()
    bridge.write(match)
    app = bridge.session(isolation=isolation)
    bridge.rows("SELECT count(*) FROM messages", connection=app)
    old = _write(bridge, match, _ago(bridge, "1 year"), connection=app)
    bridge.group()
    new = _write(bridge, match, _ago(bridge, "0 s"), connection=app)
    app.commit()
    assert _state(bridge, old) == ("cancelled", "old")
    bridge.group()
    assert _state(bridge, new)[0] == "open"


@without(("capture_message", "ON CONFLICT (message_id) WHERE kind = 'message' DO NOTHING", ""))
def test_an_old_message_that_comes_twice_is_captured_once(bridge: Bridge) -> None:
    """The second capture finds the event and leaves no turn behind."""
    match = bridge.match()
    message = _write(bridge, match, _ago(bridge, "1 year"))
    again = "SELECT bridge.capture_message(%s, %s, %s, now() - interval '1 year')"
    assert bridge.value(again, message, match, LEA) is None
    assert len(bridge.turns(match)) == 1
    answered = bridge.write(match)
    bridge.deliver(bridge.typing(match))
    assert bridge.value(again, answered, match, LEA) is None
    assert [turn.state for turn in bridge.turns(match)] == ["cancelled", "answered"]


def test_an_old_message_goes_with_the_retention_and_does_not_come_back(bridge: Bridge, ledger: Ledger) -> None:
    """Its turn and its event are pruned RETENTION_DAYS after the capture, and no replay captures it again."""
    match = bridge.match()
    message = _write(bridge, match, _ago(bridge, "16 days"))
    bridge.advance(31 * 86_400)
    assert bridge.store.prune(RETENTION_DAYS, 100) == 1
    since = bridge.value("SELECT bridge.now() - interval '90 days'")
    replayed = ledger.replay(since, None, None, retention_days=RETENTION_DAYS, dry_run=False)
    assert (replayed.captured, bridge.captured(message)) == (0, 0)


@without(NOBODY_DECIDES)
def test_an_import_of_old_conversations_is_not_answered(bridge: Bridge, ledger: Ledger) -> None:
    """Thousands of messages of 2024, with the bot's answers, by plain INSERT of the app's own role: all are `old`."""
    match = bridge.match()
    bridge.rows(
        "INSERT INTO messages (match_id, sender_id, content, created_at)"
        " SELECT %s, CASE n %% 2 WHEN 0 THEN %s::uuid ELSE %s::uuid END, 'import',"
        " '2024-01-01'::timestamptz + n * interval '1 min'"
        " FROM generate_series(1, 2000) n",
        *(match, LEA, CAMILLE),
        connection=bridge.people,
    )
    assert bridge.group() == []
    assert bridge.push() == []
    accounts = ledger.verify(RETENTION_DAYS)
    assert (accounts.messages, accounts.cancelled, accounts.unaccounted) == (1000, 1000, 0)


@without(("policy", "d.ignore_older_days, ", ""))
def test_the_recipe_for_an_import(bridge: Bridge, ledger: Ledger) -> None:
    """The role that ran `migrate`, which is no superuser, opens an import by plain INSERT while people write.

    It sets the age to a quarter of an hour and takes it back afterwards. What people write meanwhile is answered, no
    imported message or match is.
    """
    age = "UPDATE bridge.bots SET ignore_older_days = %s WHERE scope = 'default'"
    imported = str(uuid4())
    live = bridge.match(HUGO, PAUL)
    with closing(psycopg2.connect(bridge.urls.of(OWNER))) as owner, owner.cursor() as cursor:
        owner.autocommit = True
        cursor.execute(age, (0.01,))
        bridge.rows(
            "INSERT INTO matches VALUES (%s, %s, %s, now() - interval '3 days')",
            *(imported, LEA, CAMILLE),
            connection=bridge.people,
        )
        said = [_write(bridge, imported, _ago(bridge, f"{hours} hours")) for hours in (70, 30, 1)]
        _write(bridge, imported, _ago(bridge, "59 minutes"), sender=CAMILLE)
        asked = bridge.write(live, sender=HUGO)
        cursor.execute(age, (None,))
    after = bridge.write(imported)

    assert {event.match_id for event in bridge.group()} == {live, imported}
    assert [_state(bridge, message) for message in said] == [("cancelled", "old")] * 3
    assert bridge.opener(imported).reason == "old"
    assert bridge.covered(bridge.turns(live)[0].id) == [asked]
    assert _state(bridge, after)[0] == "open"
    accounts = ledger.verify(RETENTION_DAYS)
    assert (accounts.cancelled, accounts.open, accounts.unaccounted) == (3, 2, 0)


@without(("replay", "CASE WHEN bridge.is_old(e.match_id, e.created_at) THEN 'old'", "CASE WHEN false THEN 'old'"))
def test_a_replay_keeps_what_is_old_and_answers_the_rest(bridge: Bridge, ledger: Ledger) -> None:
    """The age counts on the day of the replay, for what no event knows and for what was set aside."""
    match, other = bridge.match(), bridge.match(HUGO)
    aside = _write(bridge, other, _ago(bridge, "10 days"), sender=HUGO)
    bridge.store.set_aside(other, "22008 out of range")
    bridge.rows("SET session_replication_role = replica")
    lost = _write(bridge, match, _ago(bridge, "11 days"), connection=bridge.admin)
    found = _write(bridge, match, _ago(bridge, "2 days"), connection=bridge.admin)
    bridge.rows("RESET session_replication_role")
    bridge.rows("UPDATE bridge.installation SET installed_at = now() - interval '20 days'")
    bridge.advance(6 * 86_400)
    replayed = ledger.replay(None, None, None, retention_days=RETENTION_DAYS, dry_run=False)
    assert (replayed.found, replayed.captured, replayed.ignored, replayed.given_back) == (2, 2, 1, 1)
    bridge.group()
    assert [_state(bridge, message) for message in (aside, lost)] == [("cancelled", "old")] * 2
    assert bridge.covered(bridge.pushed(match)) == [found]
    accounts = ledger.verify(RETENTION_DAYS)
    assert (accounts.cancelled, accounts.open, accounts.unaccounted) == (2, 1, 0)
