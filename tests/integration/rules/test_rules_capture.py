from __future__ import annotations

import io
import json
import shutil
from contextlib import closing
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import psycopg2
import pytest
from psycopg2 import sql

from bridge_service.demo.servers import PostgresServer
from bridge_service.machine import tasks
from bridge_service.machine.database import Connection
from bridge_service.telemetry.signals import ListenActive, ListenSilent, MessageGrouped
from schedulers import bells, listener
from tests.conftest import QUICK
from tests.support.clock import install_clock
from tests.support.databases import install, make_template
from tests.support.recorder import Recorder
from tests.support.roles import ADMIN, OWNER, SERVICE
from tests.support.rules import CAMILLE, GROUPING_DELAY, HUGO, INES, LEA, PAUL, WRITE, Bridge, without
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from psycopg2.extensions import connection as AppConnection  # noqa: N812 - as in waiting.py

    from bridge_service.turns import Line
    from tests.support.roles import Urls
    from tests.support.rules import Taken

# Rule C1: one event and nothing else

CANCELS_THE_OPENER: Final = (
    "capture_message",
    "IF v_rings THEN",
    """UPDATE bridge.turns SET state = 'cancelled', reason = 'message', due_at = NULL, ended_at = bridge.now()
       WHERE match_id = p_match AND kind = 'initiation' AND state = 'open';
       IF v_rings THEN""",
)


@without(CANCELS_THE_OPENER)
def test_C1_transactions_that_write_in_two_matches_in_opposite_order_do_not_deadlock(bridge: Bridge) -> None:
    """Two transactions of the app, each in both of two new matches and in opposite order, both commit."""
    one, other = bridge.match(opener=True), bridge.match(HUGO, opener=True)
    bridge.group()
    lea, hugo = bridge.session(), bridge.session()

    bridge.write(one, sender=LEA, connection=lea)
    bridge.write(other, sender=HUGO, connection=hugo)
    crossing = bridge.execute(lea, WRITE, str(uuid4()), other, HUGO, "chez toi")
    crossing.settle()
    bridge.write(one, sender=LEA, connection=hugo)
    crossing.result()
    lea.commit()
    hugo.commit()
    assert bridge.value("SELECT count(*) FROM bridge.events WHERE kind = 'message'") == 4


@without(CANCELS_THE_OPENER)
def test_C1_a_repeatable_read_app_writes_while_the_opener_is_grouped_and_cancelled(bridge: Bridge) -> None:
    """No message fails because the bridge changed the opener after the app's snapshot was taken."""
    match, grouped = bridge.match(opener=True), bridge.match(HUGO, opener=True)
    bridge.group(only=grouped)
    app = bridge.session(isolation="REPEATABLE READ")
    bridge.rows("SELECT count(*) FROM matches", connection=app)

    bridge.write(grouped, sender=HUGO)
    bridge.group()
    assert bridge.opener(grouped).state == "cancelled"
    bridge.write(match, connection=app)
    bridge.write(grouped, sender=HUGO, connection=app)
    app.commit()
    assert bridge.value("SELECT count(*) FROM bridge.events WHERE kind = 'message'") == 3


@without(CANCELS_THE_OPENER)
def test_C1_a_message_does_not_wait_for_the_commit_of_another_one(bridge: Bridge) -> None:
    """While one transaction holds an uncommitted message, another one writes in the same match at once."""
    match = bridge.match(opener=True)
    bridge.group()
    first = bridge.session()
    bridge.write(match, connection=first)

    bridge.execute(bridge.connect(), WRITE, str(uuid4()), match, LEA, "ça va ?").result_at_once()


APP_CALLS: Final = (
    *("after_change", "after_match", "after_message", "before_message"),
    *("capture_change", "capture_human", "capture_match", "capture_message", "pause", "share_match"),
)


@without(("before_message", "SET lock_timeout = 0", ""))
def test_C1_the_app_s_lock_timeout_does_not_abort_its_insert(bridge: Bridge) -> None:
    """A message that waits for an opener's delivery goes on waiting, however impatient its session is."""
    match = bridge.match(opener=True)
    bridge.group()
    delivery = bridge.session(ADMIN)
    bridge.rows("SELECT FROM bridge.events WHERE match_id = %s FOR UPDATE", match, connection=delivery)

    app = bridge.connect()
    bridge.rows("SET lock_timeout = '50ms'", connection=app)
    message = str(uuid4())
    writing = bridge.execute(app, WRITE, message, match, LEA, "salut")
    writing.until_waiting()
    eventually(
        lambda: bridge.value(
            "SELECT clock_timestamp() > query_start + interval '100ms' FROM pg_stat_activity WHERE pid = %s",
            writing.pid,
        )
    )
    delivery.commit()
    writing.result()
    assert bridge.captured(message) == 1


@without(("sql", "ALTER FUNCTION bridge.capture_message RESET lock_timeout"))
def test_C1_no_function_of_the_app_s_transaction_heeds_the_app_s_lock_timeout(bridge: Bridge) -> None:
    """Every function that an app's statement enters by has a lock timeout of its own: none."""
    assert bridge.rows(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'bridge'::regnamespace AND 'lock_timeout=0' = ANY (proconfig)"
        " ORDER BY proname"
    ) == [(name,) for name in APP_CALLS]


@without(("after_message", "RETURN NULL;", "RETURN NULL; EXCEPTION WHEN OTHERS THEN RETURN NULL;"))
def test_C1_a_message_that_cannot_be_captured_is_not_written(bridge: Bridge) -> None:
    """A failing capture fails the app's INSERT: there is no message that the bridge does not know of."""
    match = bridge.match()
    bridge.rows("ALTER TABLE bridge.events ADD CHECK (bot_id IS NULL) NOT VALID")

    with pytest.raises(psycopg2.errors.CheckViolation):
        bridge.write(match)
    assert bridge.messages(match) == []


QUOTES_THE_CONTENT: Final = (
    "after_message",
    "RETURN NULL;",
    "PERFORM pg_notify('bot_events', json_build_object('message_content', NEW.content)::text); RETURN NULL;",
)


@without(QUOTES_THE_CONTENT)
def test_C1_the_length_of_a_message_does_not_matter(bridge: Bridge) -> None:
    """Nothing at all, 1 MB and 10 MB are captured, and every notification stays small."""
    match = bridge.match()
    bell = bridge.listen()
    for content in (None, "", "é" * 500_000, "x" * 10_000_000):
        message = str(uuid4())
        bridge.rows(WRITE, message, match, LEA, content)
        assert bridge.captured(message) == 1
        bridge.group()  # or only the first would ring
    payloads = [payload for _, payload in bell.heard()]
    assert len(payloads) == 4
    assert max(len(payload) for payload in payloads) < 400


@without(QUOTES_THE_CONTENT)
def test_C1_what_people_write_leaves_no_trace_outside_the_app(bridge: Bridge) -> None:
    """Neither a payload nor, once its turn ended, any table of the bridge holds a message's text."""
    bell = bridge.listen()
    answered, superseded, refused = bridge.match(), bridge.match(HUGO), bridge.match(INES, PAUL)
    for match, sender in ((answered, LEA), (superseded, HUGO), (refused, INES)):
        bridge.write(match, "canari jaune", sender=sender)
    turns = [bridge.typing(match, "canari rouge") for match in (answered, superseded, refused)]
    assert _tables_with(bridge, "canari") == ["turns"]  # three drafts

    bridge.write(superseded, "canari vert", sender=HUGO)
    bridge.rows("DELETE FROM messages WHERE match_id = %s", refused)
    assert [bridge.deliver(turn).name for turn in turns] == ["answered", "superseded", "cancelled"]
    assert _tables_with(bridge, "canari") == []
    heard = bell.heard()
    assert heard
    assert not any("canari" in payload for _, payload in heard)


def _tables_with(bridge: Bridge, text: str) -> list[str]:
    tables = bridge.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'bridge' ORDER BY 1")
    return [
        table
        for (table,) in tables
        if bridge.rows(
            sql.SQL("SELECT 1 FROM bridge.{} t WHERE t::text LIKE %s").format(sql.Identifier(table)), f"%{text}%"
        )
    ]


@pytest.fixture
def stranger(bridge: Bridge) -> Iterator[str]:
    """Give a role that may write messages and make a schema of its own, and has no right on schema bridge."""
    role = f"stranger_{uuid4().hex}"
    bridge.rows(
        f"CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT ON messages, matches TO {role};"
        f" CREATE SCHEMA {role} AUTHORIZATION {role}"
    )
    yield role
    bridge.rows(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@without(("after_message", "SECURITY DEFINER", "SECURITY INVOKER"), refused=True)
def test_C1_a_role_without_any_right_on_the_bridge_is_captured_and_sees_nothing(bridge: Bridge, stranger: str) -> None:
    """The app's role needs no GRANT of the bridge's, and reads none of its tables and calls none of its functions."""
    match = bridge.match()
    app = bridge.connect(stranger)

    assert bridge.captured(bridge.write(match, connection=app)) == 1
    for forbidden in ("SELECT FROM bridge.events", "SELECT bridge.capture_match(NULL, NULL, NULL, NULL)"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            bridge.rows(forbidden, connection=app)


@without(
    ("after_message", "SECURITY DEFINER", ""),
    ("capture_message", "SECURITY DEFINER", ""),
    ("sql", "GRANT USAGE ON SCHEMA bridge TO PUBLIC; GRANT ALL ON ALL TABLES IN SCHEMA bridge TO PUBLIC"),
    ("sql", "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA bridge TO PUBLIC; GRANT SELECT ON profiles TO PUBLIC"),
)
def test_C1_row_level_security_of_the_app_hides_no_message(bridge: Bridge, stranger: str) -> None:
    """A role that may see neither the match nor the bot is captured all the same, and answered."""
    match = bridge.match()
    for table in ("profiles", "matches", "messages"):
        bridge.rows(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        bridge.rows(f"CREATE POLICY bridge ON {table} TO {OWNER} USING (true) WITH CHECK (true)")
    bridge.rows(f"CREATE POLICY writes ON messages FOR INSERT TO {stranger} WITH CHECK (true)")

    bridge.write(match, connection=bridge.connect(stranger))
    assert bridge.deliver(bridge.typing(match)).name == "answered"


@without(
    ("after_message", "SET search_path = pg_catalog, pg_temp", ""),
    ("capture_message", "SET search_path = pg_catalog, pg_temp", ""),
    ("notify", "SET search_path = pg_catalog, pg_temp", ""),
)
def test_C1_no_search_path_slips_a_function_in(bridge: Bridge, stranger: str) -> None:
    """What a role defines under the names of PostgreSQL's own functions and operators is not called by a capture."""
    match = bridge.match()
    app = bridge.connect(stranger)
    bridge.rows(
        f"""
        SET search_path = {stranger}, pg_catalog;
        CREATE TABLE loot (who text);
        GRANT USAGE ON SCHEMA {stranger} TO PUBLIC; GRANT INSERT ON loot TO PUBLIC;
        CREATE FUNCTION pg_notify(text, text) RETURNS void LANGUAGE sql AS
            'INSERT INTO {stranger}.loot VALUES (current_user)';
        CREATE FUNCTION pg_notification_queue_usage() RETURNS float8 LANGUAGE sql AS
            'INSERT INTO {stranger}.loot VALUES (current_user); SELECT 0::float8';
        CREATE FUNCTION same(uuid, uuid) RETURNS boolean LANGUAGE sql AS
            'INSERT INTO {stranger}.loot VALUES (current_user); SELECT $1 OPERATOR(pg_catalog.=) $2';
        CREATE OPERATOR = (FUNCTION = same, LEFTARG = uuid, RIGHTARG = uuid)""",  # noqa: S608 - the role is ours
        connection=app,
    )
    message = str(uuid4())
    bridge.rows("INSERT INTO public." + WRITE.removeprefix("INSERT INTO "), message, match, LEA, "x", connection=app)
    assert bridge.captured(message) == 1
    assert bridge.rows("SELECT * FROM loot", connection=app) == []


@without(("capture_message", "INSERT INTO bridge.events", "INSERT INTO events"))
def test_C1_no_temporary_table_takes_an_event_away(bridge: Bridge, stranger: str) -> None:
    """A temporary table of the name of one of the bridge's is not written: an empty search path would still find it."""
    match = bridge.match()
    app = bridge.connect(stranger)
    bridge.rows(
        "CREATE TEMP TABLE events (id bigint, kind text, match_id uuid, message_id uuid, bot_id uuid, sender_id uuid,"
        " turn_id bigint, created_at timestamptz, captured_at timestamptz, error text);"
        " GRANT ALL ON events TO PUBLIC",
        connection=app,
    )
    assert bridge.captured(bridge.write(match, connection=app)) == 1
    assert bridge.rows("SELECT * FROM events", connection=app) == []


@without(("sql", "ALTER FUNCTION bridge.ring RESET search_path"))
def test_C1_every_function_with_the_owner_s_rights_has_a_safe_search_path(bridge: Bridge) -> None:
    """No function that runs as its owner looks a name up where somebody else may define it; see `deliver`."""
    functions = bridge.rows(
        "SELECT proname, coalesce(array_to_string(proconfig, ' '), '') FROM pg_proc"
        " WHERE pronamespace = 'bridge'::regnamespace AND prosecdef AND proname NOT IN ('deliver', 'show_typing')"
    )
    assert len(functions) > 20
    assert [name for name, settings in functions if "search_path=pg_catalog, pg_temp" not in settings] == []


@without(("sql", "GRANT EXECUTE ON FUNCTION bridge.ring TO PUBLIC"))
def test_C1_nobody_may_call_a_function_for_being_anybody(bridge: Bridge) -> None:
    """PUBLIC has no right on any function, table or the schema itself."""
    assert (
        bridge.rows("""
            SELECT 'function', proname::text FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) a
            WHERE pronamespace = 'bridge'::regnamespace AND a.grantee = 0
            UNION ALL
            SELECT 'relation', relname FROM pg_class, aclexplode(relacl) a
            WHERE relnamespace = 'bridge'::regnamespace AND a.grantee = 0
            UNION ALL
            SELECT 'schema', nspname FROM pg_namespace, aclexplode(nspacl) a WHERE nspname = 'bridge' AND a.grantee = 0
        """)
        == []
    )


# Rule C2: triggers for each row

FOR_EACH_STATEMENT: Final = (
    ("sql", "DROP TRIGGER bridge_after_message ON messages"),
    ("sql", "CREATE TRIGGER bridge_after_message AFTER INSERT ON messages EXECUTE FUNCTION bridge.after_message()"),
)


def test_C1_an_app_whose_types_are_only_like_those_expected_is_served(bridge: Bridge) -> None:
    """Names and texts of limited length, times without a zone, ids of a domain: no INSERT fails, and it is answered."""
    bridge.rows(
        "CREATE DOMAIN app_id AS uuid; ALTER TABLE messages ALTER sender_id TYPE app_id;"
        " ALTER TABLE profiles ALTER first_name TYPE varchar(80);"
        " DROP TRIGGER bridge_after_edit ON messages;"
        " ALTER TABLE messages ALTER content TYPE varchar(4000), ALTER created_at TYPE timestamp;"
        " ALTER TABLE matches ALTER created_at TYPE timestamp"
    )
    match = bridge.match(opener=True)
    bridge.write(match, "salut")
    claim = bridge.claim(bridge.pushed(match))
    assert claim.outcome.task is not None
    assert [line.content for line in claim.outcome.task.messages] == ["salut"]
    assert bridge.finish(claim, "coucou", pause=0).name == "answered"


@without(
    ("sql", "DROP TRIGGER bridge_after_message ON messages"),
    (
        "sql",
        """CREATE FUNCTION bridge_test.after_messages() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               PERFORM bridge.capture_message(w.id, w.match_id, w.sender_id, w.created_at) FROM written w;
               RETURN NULL;
           END $$""",
    ),
    (
        "sql",
        """CREATE TRIGGER bridge_after_message AFTER INSERT ON messages REFERENCING NEW TABLE AS written
           EXECUTE FUNCTION bridge_test.after_messages()""",
    ),
)
def test_C2_an_insert_straight_into_a_partition_is_captured(bridge: Bridge) -> None:
    """Where `messages` is partitioned, a message is captured whether it is written through it, into a part or later."""
    triggers = bridge.rows("SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname ~ '^bridge_.*message$'")
    assert len(triggers) == 2
    bridge.rows(
        "DROP TABLE messages;"
        "CREATE TABLE messages (id uuid, match_id uuid, sender_id uuid, content text,"
        " created_at timestamptz DEFAULT now(), PRIMARY KEY (id, created_at)) PARTITION BY RANGE (created_at);"
        "CREATE TABLE messages_2024 PARTITION OF messages FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');"
        "CREATE TABLE messages_later (LIKE messages INCLUDING ALL)"
    )
    for (definition,) in triggers:
        bridge.rows(definition)
    bridge.rows("ALTER TABLE messages ATTACH PARTITION messages_later FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')")
    match = bridge.match()
    for table, day in (("messages", "2024-05-05"), ("messages_2024", "2024-05-05"), ("messages_later", "2025-05-05")):
        message = str(uuid4())
        bridge.rows(
            sql.SQL("INSERT INTO {} VALUES (%s, %s, %s, %s, %s)").format(sql.Identifier(table)),
            *(message, match, LEA, "salut", day),
        )
        assert bridge.captured(message) == 1, table


@without(("sql", "ALTER TABLE messages ENABLE ALWAYS TRIGGER bridge_after_message"))
def test_C2_a_replica_s_session_imports_history_without_capturing_it(bridge: Bridge) -> None:
    """Under session_replication_role = replica, old messages and matches are written and nobody answers them."""
    app = bridge.connect(ADMIN)
    bridge.rows("SET session_replication_role = replica", connection=app)
    match = str(uuid4())
    bridge.rows("INSERT INTO matches VALUES (%s, %s, %s, now())", match, LEA, CAMILLE, connection=app)
    bridge.write(match, connection=app)
    assert bridge.rows("SELECT * FROM bridge.events") == []


@without(*FOR_EACH_STATEMENT)
def test_C2_many_messages_of_one_statement_are_all_captured(bridge: Bridge) -> None:
    """A multi-row INSERT, an INSERT from a SELECT and a COPY leave one event a message, in their order."""
    match = bridge.match()
    ids = [str(uuid4()) for _ in range(6)]
    bridge.rows(
        "INSERT INTO messages (id, match_id, sender_id, content) VALUES (%s, %s, %s, 'a'), (%s, %s, %s, 'b')",
        *(ids[0], match, LEA, ids[1], match, LEA),
    )
    bridge.rows(
        "INSERT INTO messages (id, match_id, sender_id) SELECT u.id, %s, %s"
        " FROM unnest(%s::uuid[]) WITH ORDINALITY AS u (id, place) ORDER BY place",
        *(match, LEA, ids[2:4]),
    )
    with bridge.connect().cursor() as cursor:
        lines = "".join(f"{message}\t{match}\t{LEA}\tsalut\n" for message in ids[4:])
        cursor.copy_expert("COPY messages (id, match_id, sender_id, content) FROM STDIN", io.StringIO(lines))
    assert [str(message) for (message,) in bridge.rows("SELECT message_id FROM bridge.events ORDER BY id")] == ids


@without(
    ("after_message", "RETURN NULL;", "RETURN NEW;"),
    ("sql", "DROP TRIGGER bridge_after_message ON messages; DROP INDEX bridge.events_one_message"),
    (
        "sql",
        """CREATE TRIGGER bridge_after_message BEFORE INSERT OR UPDATE ON messages
           FOR EACH ROW EXECUTE FUNCTION bridge.after_message()""",
    ),
)
@pytest.mark.parametrize(
    "upsert",
    [
        WRITE + " ON CONFLICT (client_key) DO NOTHING",
        WRITE + " ON CONFLICT (client_key) DO UPDATE SET content = EXCLUDED.content",
        """MERGE INTO messages m USING (SELECT %s::uuid id, %s::uuid match_id, %s::uuid sender_id, %s content) n
           ON m.client_key = n.match_id::text
           WHEN MATCHED THEN UPDATE SET content = n.content
           WHEN NOT MATCHED THEN INSERT (id, match_id, sender_id, content)
           VALUES (n.id, n.match_id, n.sender_id, n.content)""",
    ],
    ids=["DO NOTHING", "DO UPDATE", "MERGE"],
)
def test_C2_a_message_sent_twice_is_captured_once(bridge: Bridge, upsert: str) -> None:
    """An app that repeats a message under its own key, but with a new id, leaves one event, that of its one row."""
    bridge.rows(
        "ALTER TABLE messages ADD client_key text GENERATED ALWAYS AS (match_id::text) STORED;"
        " ALTER TABLE messages ADD UNIQUE (client_key)"
    )
    match, first, second = bridge.match(), str(uuid4()), str(uuid4())
    bridge.rows(upsert, first, match, LEA, "salut")
    bridge.rows(upsert, second, match, LEA, "salut !")
    assert bridge.value("SELECT id FROM messages") == first
    assert (bridge.captured(first), bridge.captured(second)) == (1, 0)


# Rule C3: the bridge's time, not the app's

TIMES: Final = (
    "infinity",
    "-infinity",
    "294276-12-31 23:59:59+00",
    "10000-01-01 00:00+00",
    "0044-03-15 12:00+00 BC",
    "2099-01-01 00:00+00",
)
NEVER_OLD: Final = "UPDATE bridge.bots SET ignore_older_days = 0 WHERE scope = 'default'"
WRITE_AT: Final = "INSERT INTO messages (id, match_id, sender_id, content, created_at) VALUES (%s, %s, %s, 'salut', %s)"


def _write_at_all_times(bridge: Bridge, *more: str | None) -> list[str]:
    """Write a message of each time, none of them too old, in a match of its own, and one of now; return the matches."""
    bridge.rows(NEVER_OLD)
    times = (*TIMES, *more, "now")
    matches = [bridge.match() for _ in times]
    for match, time in zip(matches, times, strict=True):
        bridge.rows(WRITE_AT, str(uuid4()), match, LEA, time)
    return matches


@without(("capture_message", "p_created_at, bridge.now())", "p_created_at, p_created_at)"))
def test_C3_no_time_of_the_app_makes_a_due_time(bridge: Bridge) -> None:
    """Whatever time an app writes, everybody's group closes GROUPING_DELAY after the capture."""
    before = bridge.value("SELECT bridge.now()")
    matches = _write_at_all_times(bridge)
    assert {event.match_id for event in bridge.group()} == set(matches)
    late = bridge.value("SELECT bridge.now()") + timedelta(seconds=GROUPING_DELAY)
    for match in matches:
        [turn] = bridge.turns(match)
        assert before + timedelta(seconds=GROUPING_DELAY) <= turn.due_at <= late
    bridge.advance(GROUPING_DELAY + 1)
    assert {push.match_id for push in bridge.push()} == set(matches)


@without(("capture_match", "p_created_at, v_now)", "p_created_at, p_created_at)"))
def test_C3_no_time_of_a_match_makes_a_due_time(bridge: Bridge) -> None:
    """Whatever time an app gives its matches, their openers are planned from the capture on."""
    bridge.rows(NEVER_OLD)
    for time in TIMES:
        bridge.rows("INSERT INTO matches VALUES (%s, %s, %s, %s)", str(uuid4()), LEA, CAMILLE, time)
    assert len(bridge.group()) == len(TIMES)
    bridge.advance(61)
    assert len(bridge.push()) == len(TIMES)


def test_C3_a_claim_reads_any_time_of_the_app(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker gets every message, with its time where Python can hold it; to read any other as it is would fail."""
    matches = _write_at_all_times(bridge, None)
    bridge.group()
    bridge.advance(GROUPING_DELAY + 1)
    turns = [turn for match in matches for turn in bridge.turns(match)]
    bridge.push()

    lines: list[Line] = []
    for turn in turns:
        task = bridge.claim(turn.id).outcome.task
        assert task is not None
        lines += task.messages
    assert [line.content for line in lines] == ["salut"] * len(matches)
    assert [line.sent_at.year if line.sent_at else None for line in lines[:-1]] == [None] * 5 + [2099, None]
    assert lines[-1].sent_at is not None

    match = bridge.match()
    bridge.rows(WRITE_AT, str(uuid4()), match, LEA, "infinity")
    monkeypatch.setattr(tasks, "_time", datetime.fromisoformat)
    with pytest.raises(ValueError, match="infinity"):
        bridge.claim(bridge.pushed(match))


@without(("task", "jsonb_agg(line ORDER BY position) FILTER", "jsonb_agg(line ORDER BY line ->> 'sent_at') FILTER"))
def test_C3_messages_stand_in_the_order_of_their_capture(bridge: Bridge) -> None:
    """A group is answered in the order of its events' ids, not of the app's times."""
    bridge.rows(NEVER_OLD)
    match = bridge.match()
    ids = [str(uuid4()) for _ in range(3)]
    for message, time in zip(ids, ("2030-01-01", "2010-01-01", "2020-01-01"), strict=True):
        bridge.rows(WRITE_AT, message, match, LEA, time)
    task = bridge.claimed(match).outcome.task
    assert task is not None
    assert [line.message_id for line in task.messages] == ids


# Rule C4: the bell

RINGS_ALWAYS: Final = ("capture_message", "CASE current_setting('transaction_isolation') WHEN", "CASE '' WHEN")
LOOKS_ALWAYS: Final = (
    "capture_message",
    "CASE current_setting('transaction_isolation') WHEN",
    "CASE 'read committed' WHEN",
)


@without(RINGS_ALWAYS)
def test_C4_a_burst_rings_once(bridge: Bridge) -> None:
    """Messages and matches that come while the scheduler is about to look anyway do not ring again."""
    match = bridge.match()
    bell = bridge.listen()
    first = bridge.write(match)
    bridge.write(match)
    bridge.write(bridge.match(HUGO), sender=HUGO)
    bridge.match(INES, opener=True)
    [(channel, payload)] = bell.heard()
    assert channel == "bot_events"
    assert json.loads(payload).items() >= {
        "match_id": match, "bot_id": CAMILLE, "sender_id": LEA, "message_id": first,
    }.items()  # fmt: skip

    bridge.group()
    bridge.match(INES, PAUL, opener=True)
    [(channel, payload)] = bell.heard()
    assert channel == "new_match"
    assert json.loads(payload).items() >= {"user1_id": INES, "user2_id": PAUL}.items()


@without(("capture_message", "o.turn_id IS NULL AND o.error IS NULL AND", "o.id = 0 AND"))
def test_C4_a_message_that_was_rolled_back_does_not_silence_the_next_bell(bridge: Bridge) -> None:
    """Only events that the scheduler will find silence it: no grouped, rolled-back or uncommitted ones."""
    match = bridge.match()
    bell = bridge.listen()
    app = bridge.session()
    bridge.write(match, connection=app)
    bridge.write(match)
    assert len(bell.heard()) == 1
    bridge.write(match)
    assert bell.heard() == []
    bridge.group()
    app.rollback()
    bridge.write(match)
    assert len(bell.heard()) == 1


@without(("capture_message", "AND o.error IS NULL", ""))
def test_C4_events_set_aside_do_not_silence_the_bell(bridge: Bridge) -> None:
    """After a conversation was set aside, the next message rings."""
    spoilt = bridge.match(HUGO)
    bridge.write(spoilt, sender=HUGO)
    assert bridge.store.set_aside(spoilt, "cannot be grouped") == 1
    bell = bridge.listen()
    bridge.write(bridge.match())
    assert len(bell.heard()) == 1


@without(("capture_message", "AND o.id >= e.id - 100", ""))
def test_C4_the_trigger_looks_at_the_hundred_events_before_its_own_only(bridge: Bridge) -> None:
    """An ungrouped event far back does not silence the bell, so that a capture never scans history."""
    match = bridge.match()
    bridge.write(match)
    bridge.rows("SELECT nextval('bridge.events_id_seq') FROM generate_series(1, 100)")
    bell = bridge.listen()
    bridge.write(match)
    assert len(bell.heard()) == 1


@without(LOOKS_ALWAYS)
def test_C4_an_app_that_sees_the_past_rings(bridge: Bridge) -> None:
    """An event that was grouped after an app's snapshot does not silence that app's message."""
    match = bridge.match()
    app = bridge.session(isolation="REPEATABLE READ")
    bridge.write(match)
    bridge.rows("SELECT count(*) FROM messages", connection=app)
    bridge.group()
    bell = bridge.listen()
    bridge.write(match, connection=app)
    app.commit()
    assert len(bell.heard()) == 1


@without(LOOKS_ALWAYS)
def test_C4_messages_of_a_serializable_app_do_not_conflict(bridge: Bridge) -> None:
    """Two serializable transactions that write in two matches both commit, as they would without the bridge."""
    one, other = bridge.match(opener=True), bridge.match(HUGO)
    bridge.group()
    lea, hugo = bridge.session(isolation="SERIALIZABLE"), bridge.session(isolation="SERIALIZABLE")
    bridge.write(one, connection=lea)
    bridge.write(other, sender=HUGO, connection=hugo)
    lea.commit()
    hugo.commit()
    assert bridge.value("SELECT count(*) FROM bridge.events WHERE kind = 'message'") == 2


# After vacuum cannot clean it, the index of the ungrouped holds an entry for every event of hours.
HISTORY: Final = """
    INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, ended_at, reason)
    VALUES ('reply', gen_random_uuid(), gen_random_uuid(), 'cancelled', now(), now(), 'gone');
    INSERT INTO bridge.events (kind, match_id, message_id, bot_id, captured_at)
    SELECT 'message', gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), now() FROM generate_series(1, 5000);
"""
READ_ENTRIES: Final = (
    "SELECT sum(pg_stat_get_xact_tuples_returned(oid)) FROM pg_class WHERE relnamespace = 'bridge'::regnamespace"
    " AND relname ~ '^events'"
)


@pytest.fixture
def long_snapshot(bridge: Bridge) -> int:
    """Group 5,000 events under the eyes of a transaction of the app that goes on; return the last event's id."""
    app = bridge.session(isolation="REPEATABLE READ")
    bridge.rows(HISTORY)
    bridge.rows("SELECT count(*) FROM matches", connection=app)
    bridge.rows("UPDATE bridge.events SET turn_id = (SELECT min(id) FROM bridge.turns)")
    bridge.rows("VACUUM ANALYZE bridge.events")
    return int(bridge.value("SELECT max(id) FROM bridge.events"))


@without(("group_events", "AND e.id > p_after", ""))
def test_C4_an_empty_look_reads_nothing_below_its_bound(bridge: Bridge, long_snapshot: int) -> None:
    """Grouping above the last seen id does not pass over what is grouped and cannot be vacuumed yet."""
    looking = bridge.session(SERVICE)
    bridge.rows("SELECT * FROM bridge.group_events(%s, 15, 0, 0, 1)", long_snapshot, connection=looking)
    assert bridge.value(READ_ENTRIES, connection=looking) < 100


@without(("capture_message", "AND o.id >= e.id - 100", ""))
def test_C4_a_capture_reads_nothing_below_its_bound(bridge: Bridge, long_snapshot: int) -> None:
    """An app's INSERT does not pass over what is grouped and cannot be vacuumed yet."""
    assert long_snapshot == 5000
    match = bridge.match()
    app = bridge.session()
    bridge.write(match, connection=app)
    assert bridge.value(READ_ENTRIES, connection=app) < 200


@without(("before_message", "SET enable_seqscan = off", ""))
def test_T8_an_insert_reads_no_history_that_its_plan_does_not_know(bridge: Bridge) -> None:
    """A session of the app that planned its INSERT while the bridge's tables were empty still reads by index."""
    for table in ("events", "turns"):
        bridge.rows(f"VACUUM ANALYZE bridge.{table}")
    match, app = bridge.match(), bridge.session()
    for _ in range(7):  # PostgreSQL keeps a plan after five executions
        bridge.write(match, connection=app)
    app.commit()
    bridge.rows(HISTORY)
    bridge.write(match, connection=app)
    assert (
        bridge.value(
            "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"
            " WHERE schemaname = 'bridge'",
            connection=app,
        )
        < 200
    )


@pytest.fixture
def small_queue(servers_folder: Path, postgres: PostgresServer) -> Iterator[Urls]:
    """Give a database with the bridge on a server whose queue of notifications is full after half a megabyte."""
    with closing(psycopg2.connect(postgres.url())) as connection:
        if connection.server_version < 170000:
            pytest.skip("before PostgreSQL 17 the queue has 8 GB")
    with PostgresServer(servers_folder / "small queue", {**QUICK, "max_notify_queue_pages": "64"}) as server:
        urls = make_template(server, "small_queue")
        install(urls)
        install_clock(urls)
        yield urls
    shutil.rmtree(servers_folder / "small queue")


def test_C4_a_filling_notification_queue_does_not_fail_the_insert(small_queue: Urls) -> None:
    """While the queue of NOTIFY is full, messages are captured in silence; to ring would fail the app's commit."""
    taken: tuple[Taken, ...]
    for taken in ((), (("notify", "pg_notification_queue_usage() < 0.5", "true"),)):
        with closing(Bridge(small_queue, taken)) as bridge:
            match = bridge.match()
            _fill_the_queue(bridge)
            if taken:
                with pytest.raises(psycopg2.OperationalError, match="too many notifications"):
                    bridge.write(match)
            else:
                assert bridge.captured(bridge.write(match)) == 1
                bridge.group()


def test_C4_a_full_notification_queue_stops_no_step(small_queue: Urls) -> None:
    """Every step that rings goes through in silence; and once the slow reader is gone the next one frees the queue."""
    with closing(Bridge(small_queue)) as bridge:
        match, other = bridge.match(), bridge.match()
        bridge.write(match, "un")
        typing = bridge.typing(match)
        bridge.write(match, "deux")
        waiting = bridge.pushed(match)
        bridge.write(other)
        claim = bridge.claim(bridge.pushed(other))
        sleeper = _fill_the_queue(bridge)

        assert bridge.store.release({claim.turn: claim.token}) == 1
        assert bridge.deliver(typing).name == "superseded"  # and wakes the waiting turn
        assert bridge.store.claim(waiting, uuid4()).name == "claimed"
        assert not bridge.store.notify("bridge_due", "")
        sleeper.close()
        eventually(lambda: bridge.store.notify("bridge_due", ""))


def test_C4_a_listener_that_starts_into_a_full_queue_polls_until_it_hears(
    small_queue: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that it is mute, groups what it polls, and is active as soon as the queue has emptied."""
    monkeypatch.setattr(bells, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(bells, "PROVE_AGAIN_SECONDS", 0.1)
    with closing(Bridge(small_queue)) as bridge:
        match = bridge.match()
        sleeper = _fill_the_queue(bridge)
        told = Recorder()
        running = listener.Listener(
            bridge.store,
            lambda: Connection(bridge.urls.service, application="test listener"),
            on_grouped=lambda _: None,
            on_due=lambda: None,
            emit=told,
        )
        running.start()
        try:
            [silent] = told.wait_for(ListenSilent)
            assert "queue of notifications" in silent.reason
            bridge.write(match)
            told.wait_for(MessageGrouped)
            assert told.of(ListenActive) == []
            sleeper.close()
            told.wait_for(ListenActive)
        finally:
            running.stop(10)
        assert len(told.of(ListenSilent)) == 1


def _fill_the_queue(bridge: Bridge) -> AppConnection:
    """Fill it up; the session returned is the one that listens and does not read."""
    sleeper = bridge.session()
    bridge.rows("LISTEN anything", connection=sleeper)
    sleeper.commit()
    bridge.rows("SELECT", connection=sleeper)  # what it has not read cannot leave the queue
    while True:
        try:
            bridge.rows("SELECT pg_notify('anything', repeat('x', 7900))")
        except psycopg2.OperationalError as error:
            assert "too many notifications" in str(error)  # noqa: PT017 - after how many is PostgreSQL's to say
            return sleeper


# Rule C5: no advisory locks


@without(
    ("capture_message", "RETURN v_event;", "PERFORM pg_advisory_xact_lock(hashtext(p_match::text)); RETURN v_event;")
)
def test_C5_a_transaction_of_many_matches_holds_few_locks(bridge: Bridge) -> None:
    """20,000 messages over 2,000 matches are captured in one transaction that fills no shared memory."""
    bridge.rows("SET session_replication_role = replica")
    bridge.rows("INSERT INTO matches (user1_id, user2_id) SELECT %s, %s FROM generate_series(1, 2000)", LEA, CAMILLE)
    app = bridge.session()
    bridge.rows(
        "INSERT INTO messages (match_id, sender_id, content) SELECT m.id, %s, 'salut'"
        " FROM matches m, generate_series(1, 10)",
        LEA,
        connection=app,
    )
    assert bridge.value("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()", connection=app) < 100
    app.commit()
    assert bridge.value("SELECT count(*) FROM bridge.events") == 20_000
