"""Who may do what, what a stranger can reach, and where what people write is never found.

The Redis user is made by the very line of docs/SECURITY.md, as the roles of every test are.
"""

from __future__ import annotations

import json
import pickle
import random
import re
import shutil
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote
from uuid import uuid4

import dramatiq
import psycopg2
import psycopg2.errors
import pytest
import redis
from dramatiq import Worker
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import Retries
from psycopg2 import sql
from redis.exceptions import NoPermissionError

from bridge_service.brokers.broker import WaitingBroker
from bridge_service.brokers.circuit import Reconnect
from bridge_service.brokers.messages import QUEUE_NAME, message_for
from bridge_service.brokers.redis_client import Nodes, redis_call
from bridge_service.brokers.redis_client import connect as connect_redis
from bridge_service.checks import schema as looks
from bridge_service.demo.servers import RedisServer
from bridge_service.install.files import steps
from bridge_service.install.plan import migrate
from bridge_service.install.uninstall import uninstall
from bridge_service.machine.answers import Grouped
from bridge_service.machine.database import Connection, Database
from bridge_service.machine.ledger import Ledger
from bridge_service.machine.steps import Store
from bridge_service.responders import echo
from bridge_service.telemetry.signals import BadBrokerMessage, RedisConnected
from bridge_service.worker.actors import declare_actors
from bridge_service.worker.composer import Composer
from bridge_service.worker.leases import Leases
from schedulers.window import _show
from tests.support.app import CAMILLE, HUGO, LEA, App, Client
from tests.support.clock import install_clock
from tests.support.databases import copy_of, execute, install, make_template
from tests.support.policy import set_policy
from tests.support.recorder import Recorder
from tests.support.roles import APP, OWNER, PAGE, READER, SERVICE
from tests.support.rules import GROUPING_DELAY, INITIATION_DELAY, Bridge
from tests.support.service import QUICK, ROOT, Service
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bridge_service.checks.finding import Found
    from bridge_service.demo.servers import PostgresServer
    from bridge_service.turns import Task
    from tests.support.roles import Urls

PERSON: Final = "secured_person"
"""A role of the app's that may write in its tables and see nothing there, for row-level security."""

ANON: Final = "secured_anon"

CANARY: Final = "canari-7f3a9c"
DATABASE_SECRET: Final = "secret-db-41@/é"
REDIS_SECRET: Final = "secret-redis-42#?%"

HOSTILE: Final = (
    f"{CANARY}\r\n2026-11-24T23:16:18.123Z INFO bridge: ✅ Message poussé dans queue\n"
    f'{{"ts":"2026-11-24T23:16:18Z","level":"INFO","logger":"bridge","event":"forged","message":"{CANARY}"}}\n'
    f"\x1b[2J\x1b[31m{CANARY}\u202e{CANARY}\u2066\u2028\x85\x07"
)
"""A message that would forge lines, clear a terminal and turn its writing round."""

QUEUE_ID: Final = "of the test"
QUEUE: Final = f"dramatiq:{{{QUEUE_ID}}}:{QUEUE_NAME}"
FORGED: Final = 10_000
MOSTLY: Final = 0.7
"""How much of a forged message is as it should be: what is wrong with the rest decides."""


# --- Roles and databases -------------------------------------------------------------------------


RLS: Final = f"""
    ALTER TABLE profiles ENABLE ROW LEVEL SECURITY;
    ALTER TABLE matches ENABLE ROW LEVEL SECURITY;
    ALTER TABLE messages ENABLE ROW LEVEL SECURITY;
    GRANT SELECT, INSERT ON profiles, matches, messages TO {PERSON};
    CREATE POLICY matches ON matches FOR INSERT TO {PERSON} WITH CHECK (true);
    CREATE POLICY writes ON messages FOR INSERT TO {PERSON} WITH CHECK (true);
"""
"""What the bridge finds it does not find by the rights of who writes."""


@pytest.fixture(scope="module")
def strangers(postgres: PostgresServer) -> None:
    """Make the roles that only these tests have."""
    execute(postgres.url(), f"CREATE ROLE {PERSON} LOGIN; CREATE ROLE {ANON} LOGIN")


@pytest.fixture(scope="module")
def secured_template(postgres: PostgresServer, strangers: None) -> str:
    """Give the name of a template with the page's roles, in which the app's tables are under row-level security."""
    del strangers
    urls = make_template(postgres, "secured_template")
    execute(urls.app, RLS)
    for table in ("profiles", "matches", "messages"):
        execute(urls.app, f"CREATE POLICY bridge ON {table} TO {OWNER} USING (true) WITH CHECK (true)")
    install(urls)
    return urls.name


@pytest.fixture(scope="module")
def owned_template(postgres: PostgresServer, strangers: None) -> str:
    """Give the name of a template in which the owner of the app's tables owns the bridge, too, as on Supabase."""
    del strangers
    urls = make_template(postgres, "owned_template")
    execute(urls.app, RLS)
    migrate(urls.app, runtime_role=SERVICE, reader_roles=[READER])
    return urls.name


@pytest.fixture
def secured(postgres: PostgresServer, secured_template: str) -> Iterator[Urls]:
    """Give a fresh database with the page's roles, and row-level security."""
    with copy_of(postgres, secured_template) as urls:
        yield urls


@pytest.fixture
def bridge(bridge_database: Urls) -> Iterator[Bridge]:
    """Give a bridge with a clock to move."""
    install_clock(bridge_database)
    with closing(Bridge(bridge_database)) as bridge:
        yield bridge


def tables(app: App) -> list[str]:
    """Return the names of the bridge's tables."""
    found = app.rows("SELECT relname::text FROM pg_class WHERE relnamespace = 'bridge'::regnamespace AND relkind = 'r'")
    assert len(found) >= 5
    return [name for (name,) in found]


def traces(app: App, text: str, *, without: str = "") -> list[str]:
    """Return the bridge's tables in which a text is found, except in one column."""
    found = "SELECT EXISTS (SELECT FROM bridge.{} r WHERE position(%s IN (to_jsonb(r) - %s)::text) > 0)"
    return [
        table
        for table in tables(app)
        if app.value(sql.SQL(found).format(sql.Identifier(table)).as_string(app.connection), text, without)
    ]


# --- S5: least privilege -------------------------------------------------------------------------


def test_the_owner_is_an_ordinary_role(secured: Urls) -> None:
    """The role that migrates has no attribute of a superuser, and on the app's tables only the rights of the page."""
    with closing(App(secured)) as app:
        attributes = "rolsuper OR rolcreatedb OR rolcreaterole OR rolbypassrls OR rolreplication"
        for role in (OWNER, SERVICE, READER, APP):
            assert app.value(f"SELECT {attributes} FROM pg_roles WHERE rolname = %s", role) is False  # noqa: S608
        rights = app.rows(
            "SELECT table_name::text, string_agg(privilege_type, ' ' ORDER BY privilege_type)"
            " FROM information_schema.table_privileges WHERE grantee = %s AND table_schema = 'public' GROUP BY 1",
            OWNER,
        )
        assert dict(rights) == {"profiles": "SELECT", "matches": "SELECT TRIGGER", "messages": "INSERT SELECT TRIGGER"}
    report = migrate(secured.owner)
    assert report.migrations + report.functions + report.triggers == []


SHAPE: Final = """
    SELECT 'table', oid::regclass::text, relacl::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'policy', polrelid::regclass::text, polname FROM pg_policy
    UNION ALL SELECT 'schema', nspname, nspacl::text FROM pg_namespace WHERE nspname !~ '^pg_'
    ORDER BY 1, 2, 3"""
"""Tables, triggers, policies and schemas, and who may do what with them."""


@pytest.mark.parametrize(("template", "owner"), [("secured_template", OWNER), ("owned_template", APP)])
def test_the_owner_of_the_bridge_migrates_and_uninstalls(
    request: pytest.FixtureRequest, postgres: PostgresServer, template: str, owner: str
) -> None:
    """An ordinary role can put it in, take it out without a trace, and put it in again; it need own no table."""
    with copy_of(postgres, request.getfixturevalue(template)) as urls, closing(App(urls)) as app:
        installed = app.rows(SHAPE)
        of_the_bridge = [row for row in installed if row[1].startswith("bridge") or f"{row[2]}".startswith("bridge_")]
        assert [kind for kind, *_ in of_the_bridge] == ["schema"] + ["trigger"] * 6
        assert uninstall(urls.of(owner))
        assert app.rows(SHAPE) == [row for row in installed if row not in of_the_bridge]
        migrate(urls.of(owner), runtime_role=SERVICE, reader_roles=[READER])
        assert app.rows(SHAPE) == installed


MAY: Final = """
    SELECT kind, name, privilege FROM (
        SELECT 'table' AS kind, c.oid::regclass::text AS name, p AS privilege,
               has_table_privilege(%(role)s, c.oid, p) AS may
        FROM pg_class c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p
        WHERE c.relnamespace IN ('bridge'::regnamespace, 'public'::regnamespace) AND c.relkind IN ('r', 'v', 'm', 'p')
        UNION ALL
        SELECT 'column', c.oid::regclass::text, p, has_any_column_privilege(%(role)s, c.oid, p)
        FROM pg_class c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) p
        WHERE c.relnamespace IN ('bridge'::regnamespace, 'public'::regnamespace) AND c.relkind IN ('r', 'v', 'm', 'p')
        UNION ALL
        SELECT 'sequence', c.oid::regclass::text, p, has_sequence_privilege(%(role)s, c.oid, p)
        FROM pg_class c, unnest(ARRAY['USAGE', 'SELECT', 'UPDATE']) p
        WHERE c.relnamespace IN ('bridge'::regnamespace, 'public'::regnamespace) AND c.relkind = 'S'
        UNION ALL
        SELECT 'function', f.proname::text, 'EXECUTE', has_function_privilege(%(role)s, f.oid, 'EXECUTE')
        FROM pg_proc f WHERE f.pronamespace = 'bridge'::regnamespace
        UNION ALL
        SELECT 'schema', n.nspname::text, p, has_schema_privilege(%(role)s, n.oid, p)
        FROM pg_namespace n, unnest(ARRAY['USAGE', 'CREATE']) p WHERE n.nspname IN ('bridge', 'public')
        UNION ALL
        SELECT 'database', current_database()::text, 'CREATE',
               has_database_privilege(%(role)s, current_database(), 'CREATE')
        UNION ALL
        SELECT 'role', r.rolname::text, 'MEMBER', pg_has_role(%(role)s, r.oid, 'MEMBER')
        FROM pg_roles r WHERE r.rolname <> %(role)s
    ) rights WHERE may"""


def rights_of(role: str, app: App) -> set[tuple[str, str, str]]:
    """Return (kind, name, privilege) of all that a role may do to the bridge and to the app's tables."""
    with app.connection.cursor() as cursor:
        cursor.execute(MAY, {"role": role})
        return set(cursor.fetchall()) - {("schema", "public", "USAGE")}


@pytest.mark.parametrize("database", ["bridge_database", "secured"])
def test_the_runtime_role_may_call_the_steps_and_nothing_else(request: pytest.FixtureRequest, database: str) -> None:
    """EXECUTE on every step and USAGE on the schema: no table, sequence or inner function, and nothing of the app's.

    It is the role that everything under test connects as. What else it may, anybody may: CONNECT and temporary tables.
    """
    urls: Urls = request.getfixturevalue(database)
    with closing(Client(urls.service)) as service, closing(App(urls)) as app:
        role = service.value("SELECT session_user::text")
        expected = {("function", step, "EXECUTE") for step in steps()}
        assert rights_of(role, app) == {*expected, ("schema", "bridge", "USAGE")}
        # Wherever else in this server it might own something ("o") or have been granted something ("a").
        named = "SELECT DISTINCT classid::regclass::text, deptype::text FROM pg_shdepend WHERE refobjid = %s::regrole"
        assert set(app.rows(named, role)) == {("pg_proc", "a"), ("pg_namespace", "a")}


def test_the_reader_role_sees_figures_and_no_draft(secured: Urls) -> None:
    """SELECT on the bridge's tables, where it finds every row, but on no draft and no token; no function, no write."""
    with closing(App(secured)) as app, closing(Client(secured.of(READER))) as reader:
        match = app.old_match()
        app.write(match, CANARY)
        granted = rights_of(READER, app)
        assert {(kind, privilege) for kind, _, privilege in granted} == {
            ("table", "SELECT"),
            ("column", "SELECT"),
            ("schema", "USAGE"),
        }
        assert ("table", "bridge.turns", "SELECT") not in granted

        assert reader.value("SELECT count(*) FROM bridge.events") == 1
        reader.rows("SELECT id, state, due_at, last_error FROM bridge.turns")
        for statement in ("SELECT draft FROM bridge.turns", "SELECT token FROM bridge.turns", "SELECT * FROM messages"):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                reader.rows(statement)


@pytest.mark.parametrize("template", ["secured_template", "owned_template"])
def test_a_conversation_as_the_runtime_role(
    request: pytest.FixtureRequest, postgres: PostgresServer, template: str
) -> None:
    """The steps are enough for a first word, a burst, a failure, a hand-over and an end, with an app under RLS."""
    with ExitStack() as stack:
        urls = stack.enter_context(copy_of(postgres, request.getfixturevalue(template)))
        install_clock(urls)
        bridge = stack.enter_context(closing(Bridge(urls)))
        store, person = bridge.store, bridge.connect(PERSON)
        match = str(uuid4())
        bridge.rows("INSERT INTO matches VALUES (%s, %s, %s)", match, LEA, CAMILLE, connection=person)
        assert bridge.deliver(bridge.typing_opener(match)).name == "answered"

        for text in ("un", "deux"):
            bridge.write(match, text, connection=person)
        failed = bridge.claimed(match)
        assert failed.outcome.task is not None
        assert [line.content for line in failed.outcome.task.messages] == ["un", "deux"]
        assert store.fail(failed.turn, failed.token, "ValueError", retry=1, counts=True).name == "failed"
        bridge.advance(2)
        assert [push.turn_id for push in bridge.push()] == [failed.turn]
        given_back = bridge.claim(failed.turn)
        assert store.renew({given_back.turn: given_back.token}) == []
        assert store.release({given_back.turn: given_back.token}) == 1
        bridge.push()
        assert bridge.finish(bridge.claim(failed.turn), "trois", pause=0).name == "answered"
        assert sorted(content for _, content in bridge.messages(match)) == ["bonjour", "deux", "trois", "un"]

        assert store.triggers_installed()
        assert store.next_due().flush_at is None
        assert store.reset_pushes() == 0
        assert store.ungrouped_matches(10) == []
        assert store.set_aside(match, "nothing") == 0
        assert store.capture_notified(str(uuid4()), None) is None
        bridge.advance(31 * 86400)
        assert store.prune(30, 100) == 1
        with closing(Connection(urls.service, application="test")) as connection:
            assert Ledger(connection).verify(30).unaccounted == 0


def test_the_apps_own_triggers_need_rights_for_a_reply(bridge: Bridge) -> None:
    """They run as the bridge's owner when a bot replies: without a right the reply waits, with it the reply comes."""
    bridge.rows(AUDIT, connection=bridge.people)
    bridge.rows(f"REVOKE INSERT ON audit FROM {OWNER}", connection=bridge.people)
    match = bridge.match()
    message = bridge.write(match)
    turn = bridge.typing(match)
    assert bridge.deliver(turn).name == "later"
    assert (bridge.turn(turn).state, bridge.turn(turn).last_error) == ("typing", "42501")

    bridge.rows(f"GRANT INSERT ON audit TO {OWNER}", connection=bridge.people)
    bridge.advance(5)
    assert bridge.deliver(turn).name == "answered"
    assert bridge.rows("SELECT message::text FROM audit WHERE message <> %s", message) == [
        (bridge.turn(turn).reply_message_id,)
    ]


# --- S4: strangers -------------------------------------------------------------------------------


def refused(stranger: Client, statement: str) -> bool:
    """Whether a statement is refused for want of a right."""
    try:
        stranger.rows(statement)
    except psycopg2.errors.InsufficientPrivilege:
        return True
    return False


def everything_of_the_bridge(app: App) -> list[str]:
    """Return a statement that uses each table, sequence and function of the bridge."""
    uses = app.rows(
        """
        SELECT CASE relkind WHEN 'S' THEN format('SELECT last_value FROM bridge.%I', relname)
                            ELSE format('SELECT 1 FROM bridge.%I', relname) END
        FROM pg_class WHERE relnamespace = 'bridge'::regnamespace AND relkind IN ('r', 'S')
        UNION ALL
        SELECT format('SELECT nextval(%L)', oid::regclass) FROM pg_class
        WHERE relnamespace = 'bridge'::regnamespace AND relkind = 'S'
        UNION ALL
        SELECT format('INSERT INTO bridge.%I DEFAULT VALUES', relname)
        FROM pg_class WHERE relnamespace = 'bridge'::regnamespace AND relkind = 'r'
        UNION ALL
        SELECT format('SELECT bridge.%I(%s)', p.proname, (
            SELECT string_agg(format('NULL::%s', t::regtype), ', ' ORDER BY n)
            FROM unnest(p.proargtypes) WITH ORDINALITY AS a (t, n)))
        FROM pg_proc p WHERE p.pronamespace = 'bridge'::regnamespace AND p.prorettype <> 'trigger'::regtype
        """
    )
    assert len(uses) > 70
    return [use for (use,) in uses]


def test_a_stranger_is_denied_everything(secured: Urls) -> None:
    """Every table, sequence and function says no to another role: by the schema, then by itself."""
    with closing(App(secured)) as app, closing(Client(secured.of(ANON))) as stranger:
        app.write(app.old_match(), CANARY)
        uses = everything_of_the_bridge(app)
        assert [use for use in uses if not refused(stranger, use)] == []

        app.rows(f"GRANT USAGE ON SCHEMA bridge TO {ANON}")
        assert [use for use in uses if not refused(stranger, use)] == []


@pytest.mark.usefixtures("strangers")
def test_generous_defaults_open_nothing(postgres: PostgresServer) -> None:
    """Where a stranger is granted every new object by default, as on some platforms, the schema keeps him out."""
    urls = make_template(postgres, "generous")
    with closing(App(urls)) as app:
        for kind in ("TABLES", "SEQUENCES", "FUNCTIONS"):
            app.rows(f"ALTER DEFAULT PRIVILEGES FOR ROLE {APP} GRANT ALL ON {kind} TO {ANON}")
        migrate(urls.app, runtime_role=SERVICE)
        with closing(Client(urls.of(ANON))) as stranger:
            assert [use for use in everything_of_the_bridge(app) if not refused(stranger, use)] == []
    execute(postgres.url(), f"DROP DATABASE {urls.name}")


def test_a_stranger_who_listens_hears_ids(secured: Urls) -> None:
    """Any role may LISTEN; what it hears are ids and times."""
    with closing(App(secured)) as app, closing(Client(secured.of(ANON))) as stranger:
        for channel in ("bot_events", "new_match", "bridge_due"):
            stranger.rows(f"LISTEN {channel}")
        match = app.match()
        app.write(match, CANARY)
        app.write(app.old_match(), CANARY)

        def heard_both() -> bool:
            stranger.connection.poll()
            return {notify.channel for notify in stranger.connection.notifies} >= {"new_match"}

        eventually(heard_both)
        heard = [(notify.channel, json.loads(notify.payload)) for notify in stranger.connection.notifies]
        keys = {
            "bot_events": "match_id bot_id sender_id message_id created_at",
            "new_match": "id user1_id user2_id created_at",
        }
        assert all(" ".join(payload) == keys[channel] for channel, payload in heard)
        assert CANARY not in f"{heard}"


def look_at_rows(urls: Urls) -> Found:
    """Return what `check` finds as the run-time role."""
    with closing(Connection(urls.service, application="test")) as connection:
        return looks.row_security(connection)


SEEN: Final = "SELECT count(*) FROM bridge.conversation(%s) CROSS JOIN bridge.history(%s, ARRAY[%s]::uuid[], 0)"
"""Whether the bridge, whose owner asks, sees a match, who is in it, and a message."""


@pytest.mark.parametrize("table", ["profiles", "matches", "messages"])
def test_rows_that_are_hidden_from_the_bridge_are_found(secured: Urls, table: str) -> None:
    """Without the page's policy the bridge misses a conversation and nothing fails; `check` tells how to mend it."""
    with closing(App(secured)) as app, closing(Client(secured.app)) as owner, closing(Client(secured.owner)) as bridge:
        match = app.match()
        message = app.write(match, "salut")
        assert (look_at_rows(secured).ok, look_at_rows(secured).remedy) == (True, "")
        assert bridge.value(SEEN, match, match, message) == 1

        owner.rows(f"DROP POLICY bridge ON {table}")
        finding = look_at_rows(secured)
        assert (
            finding.ok,
            finding.detail.endswith(f" {OWNER}, which owns the bridge's functions, from {table}"),
        ) == (
            False,
            True,
        )
        assert bridge.value(SEEN, match, match, message) == 0

        owner.rows(finding.remedy.partition(": ")[2])
        assert (look_at_rows(secured).ok, look_at_rows(secured).remedy) == (True, "")
        assert bridge.value(SEEN, match, match, message) == 1


@pytest.mark.parametrize(
    ("statement", "verdict"),
    [
        ("CREATE POLICY other ON matches AS RESTRICTIVE USING (created_at > '2001-01-01')", "cannot tell"),
        ("CREATE POLICY other ON messages AS RESTRICTIVE FOR INSERT WITH CHECK (content <> '')", "cannot tell"),
        (f"ALTER POLICY bridge ON profiles USING (current_user = '{OWNER}')", "cannot tell"),
        (f"ALTER POLICY bridge ON messages WITH CHECK (current_user = '{OWNER}')", "cannot tell"),
        ("ALTER TABLE profiles RENAME TO people; CREATE VIEW profiles AS SELECT * FROM people", "cannot tell"),
        (
            f"DROP POLICY bridge ON messages; CREATE POLICY bridge ON messages FOR SELECT TO {OWNER} USING (true)",
            "shut",
        ),
        (f"ALTER POLICY bridge ON profiles TO {ANON}", "shut"),
        ("CREATE POLICY other ON matches AS RESTRICTIVE USING (true)", "open"),
        (f"CREATE POLICY other ON matches AS RESTRICTIVE TO {ANON} USING (false)", "open"),
        ("CREATE POLICY other ON messages AS RESTRICTIVE FOR DELETE USING (false)", "open"),
        ("CREATE POLICY other ON messages USING (sender_id IS NULL)", "open"),
        ("ALTER POLICY bridge ON matches TO PUBLIC", "open"),
        (f"ALTER POLICY bridge ON matches TO {ANON}; GRANT {ANON} TO {OWNER}", "open"),
        ("DROP POLICY bridge ON matches; ALTER TABLE matches DISABLE ROW LEVEL SECURITY", "open"),
        (f"DROP POLICY bridge ON matches; ALTER TABLE matches OWNER TO {OWNER}", "open"),
        (f"DROP POLICY bridge ON matches; ALTER TABLE matches OWNER TO {OWNER}, FORCE ROW LEVEL SECURITY", "shut"),
    ],
)
def test_what_the_policies_show_is_judged(secured: Urls, statement: str, verdict: str) -> None:
    """Shut is what no policy opens, open what one opens whole; what is decided row by row only `validate` finds out."""
    try:
        with closing(App(secured)) as app:
            app.rows(statement)
            finding = look_at_rows(secured)
            assert finding.ok is (verdict != "shut")
            assert ("cannot tell" in finding.detail, "validate" in finding.remedy) == (verdict == "cannot tell",) * 2
            if verdict == "shut":
                app.rows(finding.remedy.partition(": ")[2])
            if verdict != "cannot tell":
                assert (look_at_rows(secured).ok, look_at_rows(secured).remedy) == (True, "")
    finally:
        execute(secured.admin, f"REVOKE {ANON} FROM {OWNER}")


def test_where_the_app_looks_by_itself_no_policy_is_judged(secured: Urls) -> None:
    """Functions of the adapter that the app replaced may look elsewhere; the others are still judged."""
    with closing(App(secured)) as app:
        app.rows("ALTER FUNCTION bridge.conversation COST 7")
        assert "the app replaced conversation" in look_at_rows(secured).detail
        app.rows("DROP POLICY bridge ON matches")
        finding = look_at_rows(secured)
        assert (finding.ok, "validate" in finding.remedy) == (True, True)
        app.rows("DROP POLICY bridge ON messages")
        assert look_at_rows(secured).detail.endswith("from messages")
        app.rows("ALTER FUNCTION bridge.history COST 7")
        assert look_at_rows(secured).detail == "cannot tell: the app replaced conversation, history"


# --- S3: functions that run as their owner -------------------------------------------------------


def test_no_function_can_be_led_astray(secured: Urls) -> None:
    """Every function, triggers' ones too, is an ordinary role's, closed to PUBLIC, and says where it looks."""
    with closing(App(secured)) as app:
        functions = app.rows(
            """
            SELECT p.proname::text, pg_get_userbyid(p.proowner)::text, p.prosecdef, p.prorettype = 'trigger'::regtype,
                   (SELECT substr(c, 13) FROM unnest(p.proconfig) c WHERE c LIKE 'search_path=%'),
                   0 IN (SELECT a.grantee FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a)
            FROM pg_proc p WHERE p.pronamespace = 'bridge'::regnamespace"""
        )
        assert {name for name, *_ in functions} >= {
            *steps(),
            "after_message",
            "before_message",
            "after_match",
            "deliver",
        }
        assert {owner for _, owner, *_ in functions} == {OWNER}
        assert [name for name, *_, public in functions if public] == []
        definers = {name: path for name, _, definer, _, path, _ in functions if definer}
        assert {name for name, _, _, trigger, _, _ in functions if trigger} <= definers.keys()
        # These two let the app's own triggers find their tables.
        assert definers.pop("deliver").endswith(", pg_temp")
        assert definers.pop("show_typing").endswith(", pg_temp")
        assert set(definers.values()) == {"pg_catalog, pg_temp"}
        assert app.value("SELECT nspacl::text FROM pg_namespace WHERE nspname = 'bridge'").count("{=") == 0


LOOT: Final = """
    CREATE FUNCTION pg_temp.grab() RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO pg_temp.loot VALUES (current_user);
        RETURN true;
    END $$;
    CREATE TEMP TABLE loot (who text);
    GRANT ALL ON loot TO PUBLIC;
"""
"""Notes, in a table of the caller's, as whom a function of the caller's runs."""


def test_a_callers_own_types_run_nothing(secured: Urls) -> None:
    """A type that the writing role made for its session, named as one that the trigger uses, is not what it finds."""
    with closing(App(secured)) as app, closing(Client(secured.of(PERSON))) as attacker:
        match = app.old_match()
        attacker.rows(LOOT)
        for name in ("uuid", "bigint", "text", "timestamptz", "json", "jsonb"):
            attacker.rows(
                f"CREATE DOMAIN pg_temp.{name} AS pg_catalog.{name.replace('bigint', 'int8')} CHECK (pg_temp.grab())"
            )

        attacker.rows("INSERT INTO messages (match_id, sender_id, content) VALUES (%s, %s, 'x')", match, LEA)
        assert app.value("SELECT count(*) FROM bridge.events") == 1
        assert attacker.rows("SELECT * FROM pg_temp.loot") == []

        # With an empty search path, as one reads everywhere, it is: temporary objects come first unless named last.
        app.rows("ALTER FUNCTION bridge.capture_message SET search_path = ''")
        attacker.rows("INSERT INTO messages (match_id, sender_id, content) VALUES (%s, %s, 'x')", match, LEA)
        assert attacker.rows("SELECT DISTINCT who::pg_catalog.text FROM pg_temp.loot") == [(OWNER,)]


AUDIT: Final = f"""
    CREATE TABLE audit (message uuid);
    GRANT INSERT ON audit TO {OWNER};
    CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO audit VALUES (NEW.id);
        RETURN NULL;
    END $$;
    CREATE TRIGGER audit AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION audit();
"""  # noqa: S608 - the role is ours
"""A trigger of the app's that names its table without a schema."""


def test_a_callers_own_tables_take_nothing(bridge: Bridge) -> None:
    """A trigger of the app that names a table without its schema does not find one of the run-time role's session."""
    bridge.rows(AUDIT, connection=bridge.people)
    attacker = bridge.connect(SERVICE)

    def delivers() -> None:
        match = bridge.match()
        bridge.write(match)
        turn = bridge.typing(match)
        [[answer]] = bridge.rows("SELECT bridge.deliver_turn(%s, 3, 15, 5)", turn, connection=attacker)
        assert answer["outcome"] == "answered"

    bridge.rows("CREATE TEMP TABLE audit (message uuid); GRANT ALL ON audit TO PUBLIC", connection=attacker)
    delivers()
    assert bridge.rows("SELECT * FROM pg_temp.audit", connection=attacker) == []

    bridge.rows("ALTER FUNCTION bridge.deliver SET search_path = public")
    delivers()
    assert len(bridge.rows("SELECT * FROM pg_temp.audit", connection=attacker)) == 1


# --- S9, S10, S22: a client that can write to Redis ----------------------------------------------


class Counted:
    """The composer, counting how often it is asked."""

    def __init__(self, composer: Composer) -> None:
        self.asked = 0
        self._composer = composer

    def compose(self, turn_id: int) -> None:
        """Count, and compose."""
        self.asked += 1
        self._composer.compose(turn_id)

    def deliver(self, turn_id: int) -> None:
        """Count, and deliver."""
        self.asked += 1
        self._composer.deliver(turn_id)


AT_ONCE: Final[dict[str, Any]] = {"thinking_delay_min": 0, "thinking_delay_max": 0, "typing_speed_cps": 0}


class Workshop:
    """A worker of Dramatiq's, with the service's broker, actors and composer, in this process."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self.told = Recorder()
        self._database = Database(lambda: Connection(database_url, application="test"))
        store = Store(self._database)
        middleware = [Reconnect(self.told), Retries(max_retries=3, min_backoff=10, max_backoff=20)]
        self.broker = WaitingBroker(redis_url, emit=self.told, middleware=middleware, queue_id=lambda: QUEUE_ID)
        composer = Composer(
            store,
            Leases(store, self.told, responder_timeout=180.0),
            echo.reply,
            self.told,
        )
        self.steps = Counted(composer)
        declare_actors(self.broker, self.steps)
        self.worker = Worker(self.broker, worker_threads=4, worker_timeout=50)

    def __enter__(self) -> Self:
        self.worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.broker.stop_waiting()
        self.worker.stop(5000)
        self.broker.close()
        self._database.close()

    def threads(self) -> list[Thread]:
        """Return the threads of the worker."""
        return [*self.worker.workers, *self.worker.consumers.values()]


def state_of(bridge: Bridge) -> list[tuple[Any, ...]]:
    """Return every row that a step could change."""
    return bridge.rows(
        "SELECT 'turn', t::text FROM bridge.turns t UNION ALL SELECT 'event', e::text FROM bridge.events e"
        " UNION ALL SELECT 'message', m::text FROM messages m ORDER BY 1, 2"
    )


def forged(turns: Sequence[int]) -> Iterator[bytes]:
    """Return bodies that are almost messages of ours, each wrong in its own way, always the same ones.

    Parameters:
      turns: real ones, for which there is nothing to do now.
    """
    rng = random.Random(22)  # noqa: S311 - chance, not secrets
    foreign = {"queue_name": "elsewhere", "actor_name": "compose", "args": [turns[0]], "kwargs": {}, "options": {}}
    nothing: list[Any] = [
        None,
        True,
        -1,
        0,
        2**63,
        10**400,
        1.5,
        "1",
        CANARY,
        [],
        [1],
        {},
        {"id": 1},
        [[[[]]]],
        "é\n\0",
    ]
    options: list[tuple[str, list[Any]]] = [
        ("pipe_target", [foreign, [foreign], *nothing]),
        ("pipe_ignore", nothing),
        ("on_success", ["compose", "no_such_actor", *nothing]),
        ("on_failure", ["deliver", "no_such_actor", *nothing]),
        ("group_callbacks", [[foreign], *nothing]),
        ("retries", nothing),
        ("max_retries", [10**9, *nothing]),
        ("eta", [10**15, *nothing]),
        ("redis_message_id", ["compose:1", *nothing]),
        ("throws", nothing),
    ]

    def mostly(good: Sequence[Any], bad: Sequence[Any]) -> Any:  # noqa: ANN401 - anything
        return rng.choice(good if rng.random() < MOSTLY else bad)

    while True:
        message: dict[str, Any] = {
            "queue_name": mostly([QUEUE_NAME], [f"{QUEUE_NAME}.DQ", f"{QUEUE_NAME}.XQ", "default", *nothing]),
            "actor_name": mostly(["compose", "deliver"], ["__init__", "os.system", *nothing]),
            "args": mostly([[turn] for turn in turns], [[turns[0], 1], 7, CANARY, None, *([each] for each in nothing)]),
            "kwargs": mostly([{}], [{"turn_id": turns[0]}, {"self": 1}, CANARY, None]),
            "options": {name: rng.choice(values) for name, values in rng.sample(options, rng.randrange(len(options)))},
            "message_id": mostly([str(uuid4())], nothing),
            "message_timestamp": mostly([1], nothing),
        }
        if rng.random() < 0.1:
            del message[rng.choice([*message])]
        body = json.dumps(message).encode()
        match rng.randrange(20):
            case 0:
                yield body[: rng.randrange(len(body))]
            case 1:
                yield rng.randbytes(rng.randrange(100))
            case 2:
                yield rng.choice(
                    [pickle.dumps(message), b"[" * 9000, b'{"args":' * 1200, b"x" * 20_000, b"NaN", b"null"]
                )
            case _:
                yield body


def put(client: redis.Redis, bodies: Sequence[bytes]) -> None:
    """Put messages into the queue as anybody could who may write to Redis."""
    pipeline = client.pipeline(transaction=False)
    for body in bodies:
        name = str(uuid4())
        pipeline.hset(f"{QUEUE}.msgs", name, body)
        pipeline.rpush(QUEUE, name)
    pipeline.rpush(f"{QUEUE}.bell", "1")
    pipeline.execute()


def nothing_to_do(bridge: Bridge) -> list[int]:
    """Make turns in every state in which a push finds nothing to do, and return their ids."""
    matches = [bridge.match() for _ in range(5)]
    for match in matches:
        bridge.write(match, CANARY)
    bridge.group()
    bridge.advance(GROUPING_DELAY + 1)
    bridge.push()
    [composing, typing, answered, dead, _] = turns = [bridge.turns(match)[0].id for match in matches]
    bridge.claim(composing)
    bridge.finish(bridge.claim(typing), CANARY, pause=3600)
    bridge.finish(bridge.claim(answered), "coucou", pause=0)
    for _ in range(5):
        claim = bridge.claim(dead)
        bridge.store.fail(dead, claim.token, "ValueError", retry=0, counts=True)
    bridge.rows("UPDATE bridge.turns SET due_at = now() + interval '1 hour' WHERE state IN ('composing', 'typing')")
    bridge.rows("UPDATE bridge.turns SET state = 'open', due_at = now() + interval '1 hour' WHERE state = 'queued'")
    states = [bridge.turn(turn).state for turn in turns]
    assert states == ["composing", "typing", "answered", "dead", "open"]
    return [*turns, max(turns) + 1000]


def test_ten_thousand_forged_messages_change_nothing(
    bridge: Bridge, redis_server: RedisServer, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong types, foreign queues and actors, pipes, callbacks, real turns: no row changes and no thread dies."""
    turns = nothing_to_do(bridge)
    before = state_of(bridge)
    bodies = forged(turns)
    redis_client.rpush("dramatiq:default", "somebody else's")
    set_policy(bridge.urls, **AT_ONCE)
    with Workshop(bridge.urls.service, redis_server.url()) as workshop:
        for _ in range(FORGED // 1000):
            put(redis_client, [next(bodies) for _ in range(1000)])

        def all_taken() -> None:
            assert workshop.steps.asked + len(workshop.told.of(BadBrokerMessage)) == FORGED

        eventually(all_taken, timeout=30)
        assert workshop.steps.asked > FORGED / 4, "hardly any of them was passable"
        assert state_of(bridge) == before
        assert all(thread.is_alive() for thread in workshop.threads())

        match = bridge.match()
        bridge.write(match, "et moi ?")
        turn = bridge.pushed(match)
        workshop.broker.enqueue_many([message_for("compose", turn)])
        eventually(lambda: bridge.turn(turn).state == "answered")
        assert all(thread.is_alive() for thread in workshop.threads())

    assert redis_client.lrange("dramatiq:default", 0, -1) == ["somebody else's"]
    assert set(redis_client.scan_iter()) <= {"dramatiq:default", f"{QUEUE}.bell"}
    assert not [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}]
    assert CANARY not in caplog.text
    assert CANARY not in f"{workshop.told.signals}"


def test_an_old_dump_has_no_effect(bridge: Bridge, servers_folder: Path) -> None:
    """A Redis that comes back as it was, with pushes that were carried out long ago, changes nothing."""
    new, *old = [bridge.match(opener=True), *(bridge.match() for _ in range(3))]
    for match in old:
        bridge.write(match, CANARY)
    bridge.group()
    bridge.advance(INITIATION_DELAY + 1)
    bridge.push()
    turns = [bridge.opener(new).id, *(bridge.turns(match)[0].id for match in old)]
    typing = turns[-1]
    bridge.finish(bridge.claim(typing), CANARY, pause=1)
    bridge.advance(2)
    server = RedisServer(servers_folder / "dumped_redis")
    dump, copy = server.directory / "dump.rdb", server.directory / "copy.rdb"
    with server, closing(redis.Redis.from_url(server.url())) as client, ExitStack() as stack:
        set_policy(bridge.urls, **AT_ONCE)
        workshop = Workshop(bridge.urls.service, server.url())
        pushes = [message_for("compose", turn) for turn in turns] + [message_for("deliver", typing)]
        workshop.broker.enqueue_many(pushes)
        client.save()
        shutil.copy(dump, copy)
        stack.enter_context(workshop)
        eventually(lambda: {bridge.turn(turn).state for turn in turns} == {"answered"})
        before, asked = state_of(bridge), workshop.steps.asked

        server.stop()
        shutil.copy(copy, dump)
        workshop.told.clear()
        server.start()
        workshop.told.wait_for(RedisConnected)
        eventually(lambda: workshop.steps.asked == asked + len(pushes))
        eventually(lambda: client.llen(QUEUE) == 0)
        assert state_of(bridge) == before


def test_nothing_is_unpickled() -> None:
    """What lies in Redis is JSON, APScheduler keeps its jobs in memory, and no module of ours knows pickle."""
    assert type(dramatiq.get_encoder()).__name__ == "JSONEncoder"
    modules = [*(ROOT / "bridge_service").rglob("*.py"), *(ROOT / "schedulers").rglob("*.py")]
    assert len(modules) > 40
    words = re.compile(r"\b(pickle|shelve|marshal|jobstores\.(sqlalchemy|redis|mongodb))\b")
    assert [module.name for module in modules if words.search(module.read_text(encoding="utf-8"))] == []


# --- S24: the Redis user -------------------------------------------------------------------------

USER: Final = "secured"


[_LINE] = re.findall(r"^ACL SETUSER bridge (.*)$", PAGE, re.MULTILINE)
RULES: Final = _LINE.split()
RIGHTS: Final = [rule for rule in RULES if rule[0] in "~+"]
"""What the page lets one type into redis-cli, and the keys and commands among it."""


@contextmanager
def redis_user(server: RedisServer, password: str, *, without: str = "") -> Iterator[str]:
    """Make the page's user and give its URL."""
    with closing(redis.Redis.from_url(server.url(), decode_responses=True)) as admin:
        rules = [f">{password}" if rule == ">PASSWORD" else rule for rule in RULES if rule != without]
        admin.execute_command("ACL", "SETUSER", USER, *rules)  # type: ignore[no-untyped-call]
        admin.script_flush()
        admin.acl_log_reset()
        yield server.url().replace("//", f"//{USER}:{quote(password, safe='')}@")
        admin.execute_command("ACL", "DELUSER", USER)  # type: ignore[no-untyped-call]


def denied(server: RedisServer) -> list[str]:
    """Return what Redis has refused since the page's user was made."""
    with closing(redis.Redis.from_url(server.url(), decode_responses=True)) as admin:
        return [f"{entry['reason']} {entry['object']}" for entry in admin.acl_log()]


def use_all_of_redis(url: str) -> None:
    """Do with Redis once whatever scheduler, worker and console do with it."""
    with (
        closing(WaitingBroker(url, emit=Recorder(), middleware=[], queue_id=lambda: QUEUE_ID)) as broker,
        closing(connect_redis(url)) as window,
    ):
        broker.declare_queue(QUEUE_NAME)
        broker.probe()
        for _ in range(2):
            broker.enqueue_many([message_for("compose", 1), message_for("compose", 2)])
        assert len(broker.fetch(QUEUE_NAME, 1)) == 1
        redis_call(lambda: broker.client.delete(QUEUE))  # of a half that is lost the rest is looked for
        broker.enqueue_many([message_for("compose", 2)])
        redis_call(lambda: broker.client.blpop([broker.bell(QUEUE_NAME)], 1))
        redis_call(broker.client.ping)
        now = datetime.now(UTC)
        due_at = now + timedelta(seconds=1)
        shown = _show([Grouped(1, "message", "of the test", "bot", 1, 1, now, due_at, "open")], now)
        redis_call(lambda: Nodes(window).run([*shown, ("DEL", "context:of the test")]))


def test_the_rights_of_the_page_are_enough(any_redis: RedisServer) -> None:
    """Nothing that the service does with Redis is denied to the page's user, who reaches no other key."""
    with closing(redis.Redis.from_url(any_redis.url())) as admin:
        admin.flushall()
    with redis_user(any_redis, REDIS_SECRET) as url:
        use_all_of_redis(url)
        assert denied(any_redis) == []
        with closing(redis.Redis.from_url(url)) as client:
            for command in (
                ("LPUSH", "elsewhere", "1"),
                ("KEYS", "*"),
                ("FLUSHALL",),
                ("CONFIG", "GET", "*"),
                ("MONITOR",),
            ):
                with pytest.raises(NoPermissionError):
                    client.execute_command(*command)  # type: ignore[no-untyped-call]


@pytest.mark.usefixtures("redis_client")
@pytest.mark.parametrize("right", RIGHTS)
def test_no_right_of_the_page_is_superfluous(redis_server: RedisServer, right: str) -> None:
    """Without any one of them Redis refuses something."""
    with redis_user(redis_server, REDIS_SECRET, without=right) as url:
        with suppress(ConnectionClosed, NoPermissionError):
            use_all_of_redis(url)
        assert denied(redis_server)


# --- S1, S11, S20: what people write, and secrets ------------------------------------------------


def outspoken(task: Task) -> str:
    """Echo, but at the first attempt at a burst fail with everything that was said."""
    if task.attempts == 0 and task.messages:
        raise ValueError(f"what shall I say to {task.messages[0].content}")
    return echo.reply(task)


class Eavesdropper:
    """Hears every command that reaches a Redis."""

    def __init__(self, server: RedisServer) -> None:
        self.commands: list[str] = []
        self._client = redis.Redis.from_url(server.url(), socket_timeout=None)
        self._end = str(uuid4())

    def __enter__(self) -> Self:
        self._monitor = self._client.monitor().__enter__()  # type: ignore[no-untyped-call]
        self._thread = Thread(target=self._hear, daemon=True)
        self._thread.start()
        return self

    def _hear(self) -> None:
        for heard in self._monitor.listen():
            if self._end in heard["command"]:
                return
            self.commands.append(heard["command"])

    def __exit__(self, *_: object) -> None:
        self._client.echo(self._end)
        self._thread.join(5)
        self._monitor.__exit__(None, None, None)
        self._client.close()


def forge_notifications(stranger: Client, match: str) -> None:
    """NOTIFY what would forge lines, if its words were logged."""
    ids = {"match_id": match, "bot_id": CAMILLE, "sender_id": LEA, "message_id": str(uuid4())}
    content = {"message_content": HOSTILE, "content": HOSTILE}
    anywhere = {"note": HOSTILE, HOSTILE: 1, "more": [HOSTILE, {"deep": HOSTILE}], "created_at": HOSTILE}
    for fields in ({**anywhere, **ids}, {**content, **ids}, {**ids, "match_id": HOSTILE}, HOSTILE):
        stranger.rows("SELECT pg_notify('bot_events', %s)", json.dumps(fields))
    stranger.rows("SELECT pg_notify('bot_events', %s)", HOSTILE)
    stranger.rows("SELECT pg_notify('new_match', %s)", json.dumps({"id": HOSTILE}))


PREFIX: Final = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z [A-Z]+ \S+: ")
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.mark.slow
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_is_said_is_found_nowhere_else(
    secured: Urls, redis_server: RedisServer, redis_client: redis.Redis, log_format: str
) -> None:
    """The least rights carry a first word and a hostile burst, of which nothing is left anywhere, nor of a password."""
    with ExitStack() as stack:
        redis_url = stack.enter_context(redis_user(redis_server, REDIS_SECRET))
        monitor = stack.enter_context(Eavesdropper(redis_server))
        environment = {
            **QUICK,
            "DATABASE_URL": secured.of(f"{SERVICE}:{quote(DATABASE_SECRET, safe='')}"),
            "REDIS_URL": redis_url,
            "INITIATION_PROBABILITY": "1",
            "INITIATION_DELAY_MIN": "0",
            "INITIATION_DELAY_MAX": "0",
            "RESPONDER": f"{__name__}:outspoken",
            "LOG_FORMAT": log_format,
        }
        app = stack.enter_context(closing(App(secured)))
        person = stack.enter_context(closing(Client(secured.of(PERSON))))
        stranger = stack.enter_context(closing(Client(secured.of(ANON))))
        service = stack.enter_context(Service(environment))
        app.rows("UPDATE profiles SET first_name = %s WHERE NOT is_bot", HOSTILE)
        match = str(uuid4())
        person.rows("INSERT INTO matches VALUES (%s, %s, %s)", match, LEA, CAMILLE)
        scheduler, worker = service.start_scheduler(), service.start_worker()
        service.wait_for_line("listen_active|Écoute active", process=scheduler)
        service.wait_for_line("redis_connected|Connecté à Redis", process=worker)
        app.wait_for_replies(match, "bonjour")

        for text in (HOSTILE, f"{CANARY} 2"):
            person.rows("INSERT INTO messages (match_id, sender_id, content) VALUES (%s, %s, %s)", match, LEA, text)
        forge_notifications(stranger, match)
        eventually(lambda: redis_client.exists(f"context:{match}") == 1)
        assert CANARY not in f"{redis_client.hgetall(f'context:{match}')}"
        app.wait_for_replies(match, "bonjour", f"{HOSTILE}\n{CANARY} 2")
        service.wait_for_line("turn_failed|en erreur")
        service.wait_for_line("reply_delivered|envoyée", count=2)
        assert service.stop() == [0, 0]

        # Dramatiq's parent imports nothing of ours; its lines have a form of their own.
        lines = [line.raw for line in service.lines() if "[dramatiq.MainProcess]" not in line.raw]
        assert len(lines) > 20
        secrets = [CANARY, DATABASE_SECRET, REDIS_SECRET, quote(DATABASE_SECRET, safe=""), quote(REDIS_SECRET, safe="")]
        assert [line for line in lines if any(secret in line for secret in secrets)] == []
        assert [line for line in lines if CONTROL.search(line)] == []
        if log_format == "json":
            assert all(json.loads(line).keys() >= {"ts", "level", "logger", "event"} for line in lines)
        else:
            assert [line for line in lines if not PREFIX.match(line)] == []
        pushes = app.value("SELECT count(*) FROM bridge.turns WHERE queued_at IS NOT NULL")
        assert len([line for line in lines if "Message poussé dans queue" in line]) == pushes == 2

        assert any("bot_messages" in command for command in monitor.commands)
        assert any("context:" in command for command in monitor.commands)
        assert [command for command in monitor.commands if any(secret in command for secret in secrets)] == []
        assert denied(redis_server) == []
        queue_id = app.value("SELECT bridge.queue_id()")
        assert set(redis_client.scan_iter()) <= {f"dramatiq:{{{queue_id}}}:{QUEUE_NAME}.bell"}

        assert {state for (state,) in app.rows("SELECT state FROM bridge.turns")} == {"answered"}
        assert traces(app, CANARY, without="last_error") == []
        # That is the one place: for the operator, what the responder raised.
        assert traces(app, CANARY) == ["turns"]
        assert app.value("SELECT max(length(last_error)) FROM bridge.turns") <= 500


# --- S20: erasure and retention ------------------------------------------------------------------

ERASED: Final = {
    "messages": ("DELETE FROM messages WHERE match_id = %(match)s",),
    "match": ("DELETE FROM messages WHERE match_id = %(match)s", "DELETE FROM matches WHERE id = %(match)s"),
    "person": (
        "DELETE FROM messages WHERE match_id = %(match)s",
        "DELETE FROM matches WHERE id = %(match)s",
        "DELETE FROM profiles WHERE id = %(person)s",
    ),
}


def erase(bridge: Bridge, what: str, match: str) -> None:
    """Delete it from the app's tables."""
    with bridge.admin.cursor() as cursor:
        for statement in ERASED[what]:
            cursor.execute(statement, {"match": match, "person": LEA})


@pytest.mark.parametrize("what", ["messages", "match", "person"])
@pytest.mark.parametrize("stage", ["ungrouped", "open", "queued", "composing", "typing"])
def test_what_is_erased_ends_its_turn(bridge: Bridge, stage: str, what: str) -> None:
    """Whatever the app deletes while a reply is owed, the turn ends as `gone`, and others are answered."""
    match, other = bridge.match(), bridge.match(HUGO)
    bridge.write(match, CANARY)
    if stage != "ungrouped":
        bridge.group()
    turn = 0
    if stage in {"queued", "composing", "typing"}:
        turn = bridge.pushed(match)
    claim = bridge.claim(turn) if stage in {"composing", "typing"} else None
    if claim and stage == "typing":
        assert bridge.finish(claim, CANARY).name == "typing"

    erase(bridge, what, match)

    turn = turn or bridge.pushed(match)
    if claim is None:
        ended = bridge.claim(turn).outcome
    else:
        if stage == "composing":
            assert bridge.finish(claim, CANARY).name == "typing"
        bridge.advance(6)
        ended = bridge.deliver(turn)
    assert (ended.name, ended.details["reason"]) == ("cancelled", "gone")
    assert bridge.messages(match) == []
    bridge.write(other, "et moi ?", sender=HUGO)
    assert bridge.deliver(bridge.typing(other)).name == "answered"
    with closing(App(bridge.urls)) as app:
        assert traces(app, CANARY) == []
        # What is left are ids; the page's statement takes them, too, once the match is gone.
        assert sorted(traces(app, match)) == ["events", "turns"]
        bridge.step("SELECT bridge.forget_matches(ARRAY[%s]::uuid[])", match)
        assert (traces(app, match) == []) is (what != "messages")
        assert (traces(app, LEA) == []) is (what != "messages")


@pytest.mark.parametrize("what", ["match", "person"])
def test_a_first_word_into_what_is_erased(bridge: Bridge, what: str) -> None:
    """An opener whose match is deleted before its moment ends as `gone`."""
    match = bridge.match(opener=True)
    turn = bridge.typing_opener(match)
    erase(bridge, what, match)

    ended = bridge.deliver(turn)
    assert (ended.name, ended.details["reason"]) == ("cancelled", "gone")


def test_retention(bridge: Bridge) -> None:
    """What is finished goes after its days; what is unfinished or dead stays, and so does every opener's draw."""
    new, *old = [bridge.match(opener=True), *(bridge.match() for _ in range(4))]
    for match in old:
        bridge.write(match)
    answered, dead, cancelled, waiting = old
    erase(bridge, "match", cancelled)
    bridge.group()
    bridge.advance(INITIATION_DELAY + 1)
    bridge.push()
    turns = {match: bridge.turns(match)[0].id for match in old}
    bridge.store.fail(turns[answered], bridge.claim(turns[answered]).token, CANARY, retry=0, counts=True)
    bridge.finish(bridge.claim(turns[answered]), "coucou", pause=0)
    for _ in range(5):
        bridge.store.fail(turns[dead], bridge.claim(turns[dead]).token, CANARY, retry=0, counts=True)
    bridge.claim(turns[cancelled])
    bridge.finish(bridge.claim(bridge.opener(new).id), "bonjour", pause=0)
    states = {match: bridge.turn(turn).state for match, turn in turns.items()}
    assert states == {answered: "answered", dead: "dead", cancelled: "cancelled", waiting: "queued"}

    bridge.advance(29 * 86400)
    assert bridge.store.prune(30, 100) == 0
    bridge.advance(2 * 86400)
    assert bridge.store.prune(30, 100) == 2
    left = {match for (match,) in bridge.rows("SELECT match_id::text FROM bridge.turns")}
    assert left == {new, dead, waiting}
    assert {match for (match,) in bridge.rows("SELECT match_id::text FROM bridge.events")} == left
