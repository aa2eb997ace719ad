"""Which types the app's columns may have: what fits is served, what does not is refused before a trigger is laid."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import psycopg2
import pytest
from typer.testing import CliRunner

from bridge_service.checks.postgresql import check_postgresql
from bridge_service.errors import DatabaseRefused, TablesUnfit
from bridge_service.install.plan import migrate, plan
from bridge_service.operate.cli import app as command_line
from tests.integration.test_migrate import dump
from tests.support.app import CAMILLE, LEA, App
from tests.support.databases import execute
from tests.support.policy import set_grouping
from tests.support.roles import OWNER, SERVICE
from tests.support.store import store_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.demo.servers import RedisServer
    from tests.support.roles import Urls


CONTRACT: Final = {
    "profiles": {"id": "uuid", "first_name": "text", "is_bot": "boolean"},
    "matches": {"id": "uuid", "user1_id": "uuid", "user2_id": "uuid", "created_at": "timestamptz"},
    "messages": {"id": "uuid", "match_id": "uuid", "sender_id": "uuid", "content": "text", "created_at": "timestamptz"},
}
DOMAINS: Final = (
    # As the extension makes it, which not every PostgreSQL brings.
    "CREATE TYPE citext",
    "CREATE FUNCTION citextin(cstring) RETURNS citext LANGUAGE internal IMMUTABLE STRICT AS 'textin'",
    "CREATE FUNCTION citextout(citext) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout'",
    "CREATE TYPE citext (INPUT = citextin, OUTPUT = citextout, LIKE = text, CATEGORY = 'S')",
    "CREATE CAST (citext AS text) WITHOUT FUNCTION AS IMPLICIT",
    "CREATE CAST (text AS citext) WITHOUT FUNCTION AS ASSIGNMENT",
    "CREATE DOMAIN key AS uuid",
    "CREATE DOMAIN own_key AS key NOT NULL",
    "CREATE DOMAIN body AS varchar(2000) NOT NULL CHECK (VALUE <> '')",
    "CREATE DOMAIN flag AS boolean",
    "CREATE DOMAIN moment AS timestamp(3) with time zone",
    "CREATE TYPE mood AS ENUM ('calm')",
)
EVERY_ID: Final = ("profiles.id", "matches.id", "matches.user1_id", "matches.user2_id")
IDS_OF_MESSAGES: Final = ("messages.id", "messages.match_id", "messages.sender_id")
TIMES: Final = ("matches.created_at", "messages.created_at")

FITS: Final = {
    "contract": {},
    "varchar": {"profiles.first_name": "varchar(30)", "messages.content": "varchar(500)"},
    "char": {"profiles.first_name": "char(20)", "messages.content": "char(20)"},
    "citext": {"profiles.first_name": "citext", "messages.content": "citext"},
    "timestamp": dict.fromkeys(TIMES, "timestamp"),
    "seconds": dict.fromkeys(TIMES, "timestamp(0) without time zone"),
    "domains": {
        **dict.fromkeys((*EVERY_ID, *IDS_OF_MESSAGES), "own_key"),
        "profiles.first_name": "body",
        "profiles.is_bot": "flag",
        "messages.content": "body",
        **dict.fromkeys(TIMES, "moment"),
    },
    "mixed": {"profiles.id": "key", "matches.user1_id": "uuid", "matches.created_at": "date"},
    "names": {"profiles.first_name": "jsonb"},
}

UNFIT: Final = {
    "text ids": (dict.fromkeys((*EVERY_ID, *IDS_OF_MESSAGES), "text"), "type text, needed is uuid", 7),
    "bigint ids": (dict.fromkeys((*EVERY_ID, *IDS_OF_MESSAGES), "bigint"), "type bigint, needed is uuid", 7),
    "varchar ids": (dict.fromkeys(IDS_OF_MESSAGES, "varchar(36)"), "type character varying(36), needed is uuid", 3),
    "one id": ({"messages.sender_id": "integer"}, "column messages.sender_id has type integer, needed is uuid", 1),
    "profile": ({"profiles.id": "bytea"}, "column profiles.id has type bytea, needed is uuid", 1),
    "bigint times": (dict.fromkeys(TIMES, "bigint"), "type bigint, needed is timestamptz or timestamp", 2),
    "text times": ({"matches.created_at": "text"}, "matches.created_at has type text, needed is timestamptz", 1),
    "time": ({"messages.created_at": "time"}, "has type time without time zone, needed is timestamptz", 1),
    "date": ({"messages.created_at": "date"}, "messages.created_at has type date, needed is timestamptz", 1),
    "integer flag": ({"profiles.is_bot": "integer"}, "profiles.is_bot has type integer, needed is boolean", 1),
    "text flag": ({"profiles.is_bot": "varchar(5)"}, "profiles.is_bot has type character varying(5), needed", 1),
    "jsonb": ({"messages.content": "jsonb"}, "messages.content has type jsonb, needed is text", 1),
    "bytea": ({"messages.content": "bytea"}, "messages.content has type bytea, needed is text", 1),
    "texts": ({"messages.content": "text[]"}, "messages.content has type text[], needed is text", 1),
    "name": ({"messages.content": "name"}, "messages.content has type name, needed is text", 1),
    "enum": ({"messages.content": "mood"}, "messages.content has type mood, needed is text", 1),
}


@pytest.fixture
def app(app_database: Urls) -> Iterator[App]:
    """Give the app, on a database without the bridge."""
    execute(app_database.admin, *DOMAINS)
    with closing(App(app_database)) as app:
        yield app


def lay(app: App, types: dict[str, str], *, partitioned: bool = False) -> None:
    """Make the app's tables with the contract's types, except where others are given, and without keys."""
    for table, columns in CONTRACT.items():
        made = ", ".join(f"{name} {types.get(f'{table}.{name}', wanted)}" for name, wanted in columns.items())
        by = " PARTITION BY HASH (match_id)" if partitioned and table == "messages" else ""
        app.rows(f"DROP TABLE {table} CASCADE; CREATE TABLE {table} ({made}){by}; ALTER TABLE {table} OWNER TO app")
        app.rows(f"GRANT SELECT, INSERT, TRIGGER ON {table} TO {OWNER}")
    if partitioned:
        for part in (0, 1):
            app.rows(
                f"CREATE TABLE messages_{part} PARTITION OF messages FOR VALUES WITH (MODULUS 2, REMAINDER {part});"
                f" ALTER TABLE messages_{part} OWNER TO app; GRANT TRIGGER ON messages_{part} TO {OWNER}"
            )


def answers(app: App, name: str) -> None:
    """Fail unless the whole way of two turns goes well: captured, grouped, claimed with the history, delivered."""
    match = str(uuid4())
    app.rows("INSERT INTO profiles VALUES (%s, %s, true), (%s, %s, false)", CAMILLE, name, LEA, name)
    app.people.rows("INSERT INTO matches VALUES (%s, %s, %s, now())", match, LEA, CAMILLE)
    assert app.value("SELECT count(*) FROM bridge.events WHERE kind = 'match'") == 1
    set_grouping(app.urls, 0)
    with store_on(app.urls) as store:
        for text, reply in (("salut", "coucou"), ("ça va ?", "oui")):
            app.people.rows(
                "INSERT INTO messages VALUES (%s, %s, %s, %s, clock_timestamp())", str(uuid4()), match, LEA, text
            )
            store.group()
            [push] = [push for push in store.push_due(10) if push.first]
            token = uuid4()
            details = store.claim(push.turn_id, token).details
            assert [message["content"].rstrip() for message in details["messages"]] == [text]
            store.finish(push.turn_id, token, reply, pause=0.0)
    assert sorted(content.rstrip() for content in app.said(match)) == ["coucou", "oui"]
    late = "SELECT count(*) FROM messages WHERE abs(extract(epoch FROM created_at::timestamptz - now())) > 60"
    assert app.value(late) == 0
    accounts = app.value("SELECT bridge.verify(30, 10)")
    assert (accounts["answered"], accounts["unaccounted"], accounts["dead"]) == (2, 0, 0)
    assert app.value("SELECT count(*) FROM bridge.messages_to_bots('-infinity', 'infinity')") == 2


@pytest.mark.parametrize("types", FITS.values(), ids=FITS)
def test_what_can_be_cast_without_loss_is_served(app: App, types: dict[str, str]) -> None:
    """From the app's INSERT to the reply in its table, twice in a conversation."""
    lay(app, types)
    migrate(app.urls.owner, runtime_role=SERVICE)
    answers(app, '"Léa"')


def test_a_partitioned_table_is_served(app: App) -> None:
    """The triggers are made on its partitions, too."""
    lay(app, FITS["domains"], partitioned=True)
    migrate(app.urls.owner, runtime_role=SERVICE)
    answers(app, "Léa")


def test_a_partition_on_which_no_trigger_may_be_made_is_named_before_anything_is_laid(app: App) -> None:
    """The right on the partitioned table does not do; the second table's partitions are looked at in time, too."""
    app.rows(
        "ALTER TABLE matches RENAME TO old; CREATE TABLE matches (LIKE old) PARTITION BY HASH (id);"
        " CREATE TABLE matches_0 PARTITION OF matches FOR VALUES WITH (MODULUS 1, REMAINDER 0);"
        f" GRANT SELECT, TRIGGER ON matches TO {OWNER}"
    )
    with pytest.raises(DatabaseRefused, match=r"permission denied for table matches_0: .* TRIGGER"):
        migrate(app.urls.owner)
    assert app.value("SELECT to_regnamespace('bridge')") is None


@pytest.mark.parametrize(("types", "words", "lines"), UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit_is_refused_column_by_column(app: App, types: dict[str, str], words: str, lines: int) -> None:
    """A line for each column with the type found and the type needed; nothing is changed, and `plan` says the same."""
    lay(app, types)
    before = dump(app.urls.admin)
    for run in (migrate, plan):
        with pytest.raises(TablesUnfit) as refusal:
            run(app.urls.owner)
        assert len(refusal.value.faults) == lines
        assert all(words in fault for fault in refusal.value.faults)
        assert {fault.split()[1] for fault in refusal.value.faults} == set(types)
    assert dump(app.urls.admin) == before


@pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED VIEW"])
@pytest.mark.parametrize("table", ["matches", "messages"])
def test_a_view_is_refused_where_a_trigger_is_needed(app: App, table: str, kind: str) -> None:
    """Before anything is laid, for either table."""
    app.rows(f"ALTER TABLE {table} RENAME TO kept; CREATE {kind} {table} AS TABLE kept")
    app.rows(f"GRANT SELECT, TRIGGER ON {table} TO {OWNER}")
    before = dump(app.urls.admin)
    with pytest.raises(TablesUnfit, match=f"^{table} is a view, needed is a table"):
        migrate(app.urls.owner)
    assert dump(app.urls.admin) == before


def test_profiles_may_be_a_view(app: App) -> None:
    """The bridge lays no trigger on it."""
    app.rows("CREATE TABLE people (id uuid, nick text, bot boolean); DROP TABLE profiles CASCADE")
    app.rows("CREATE VIEW profiles AS SELECT id, nick AS first_name, bot AS is_bot FROM people")
    app.rows(f"GRANT SELECT ON profiles TO {OWNER}")
    migrate(app.urls.owner, runtime_role=SERVICE)
    answers(app, "Léa")


def test_the_command_says_a_line_for_each_column(app: App, redis_server: RedisServer) -> None:
    """And ends with 1; the plan, too."""
    lay(app, UNFIT["bigint times"][0])
    environment = {"DATABASE_URL": app.urls.owner, "REDIS_URL": redis_server.url()}
    for words in (["migrate"], ["migrate", "--plan"]):
        result = CliRunner().invoke(command_line, words, env=environment)
        assert result.exit_code == 1
        assert result.stderr.splitlines() == [
            f"column {column} has type bigint, needed is timestamptz or timestamp: nothing was changed"
            for column in TIMES
        ]


REPLACED: Final = {
    "conversation": (
        "CREATE OR REPLACE FUNCTION bridge.conversation(p_match uuid) RETURNS TABLE (bot_id uuid, bot_name text,"
        " person_id uuid, person_name text, matched_at timestamptz) LANGUAGE plpgsql STABLE SECURITY DEFINER AS"
        " 'BEGIN RETURN QUERY SELECT m.user2_id, m.id::varchar, m.user1_id, ''x''::text, m.created_at"
        " FROM public.matches m WHERE m.id = p_match; END'"
    ),
    "history": (
        "CREATE OR REPLACE FUNCTION bridge.history(p_match uuid, p_covered uuid[], p_lines integer)"
        " RETURNS TABLE (message_id uuid, sender_id uuid, content text, created_at timestamptz, covered boolean)"
        " LANGUAGE plpgsql AS 'BEGIN RETURN QUERY SELECT w.id, w.author, w.content, w.created_at, true"
        " FROM public.messages w; END'"
    ),
    "messages_to_bots": (
        "DROP FUNCTION bridge.messages_to_bots; CREATE FUNCTION bridge.messages_to_bots(p_since date, p_until date)"
        " RETURNS TABLE (message_id uuid, match_id uuid, bot_id uuid, sender_id uuid, created_at timestamptz)"
        " LANGUAGE plpgsql AS 'BEGIN RETURN QUERY SELECT 1; END'"
    ),
    "capture_message": (
        "CREATE OR REPLACE FUNCTION bridge.capture_message(p_message uuid, p_match uuid, p_sender uuid,"
        " p_created_at timestamptz) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN nothing.here(p_match); END'"
    ),
    "deliver": (
        "SET check_function_bodies = off; CREATE OR REPLACE FUNCTION bridge.deliver(p_turn bigint, p_message uuid,"
        " p_match uuid, p_bot uuid, p_content text, p_created_at timestamptz) RETURNS uuid LANGUAGE sql AS"
        " 'INSERT INTO public.messages (id, author) VALUES (p_message, p_bot) RETURNING id'"
    ),
}


@pytest.mark.parametrize("function", REPLACED)
def test_a_function_that_the_app_replaced_is_proven_too(app: App, function: str) -> None:
    """One that cannot run is named before it fails a turn, or an INSERT of the app's."""
    migrate(app.urls.owner)
    app.rows(f"{REPLACED[function]}; RESET check_function_bodies; DROP TRIGGER bridge_after_message ON messages")
    before = dump(app.urls.admin)
    with pytest.raises(TablesUnfit, match=f"bridge.{function}.* cannot run on the app's tables: .*SQLSTATE"):
        migrate(app.urls.owner)
    assert dump(app.urls.admin) == before


def test_columns_that_only_replaced_functions_use_may_have_any_type_or_be_missing(app: App) -> None:
    """`migrate` and `check` accept an app that reads its people elsewhere."""
    migrate(app.urls.owner)
    app.rows(
        "CREATE OR REPLACE FUNCTION bridge.conversation(p_match uuid) RETURNS TABLE (bot_id uuid, bot_name text,"
        " person_id uuid, person_name text, matched_at timestamptz) LANGUAGE sql STABLE SECURITY DEFINER AS"
        " 'SELECT m.user2_id, ''x'', m.user1_id, ''y'', m.created_at FROM public.matches m WHERE m.id = p_match'"
    )
    app.rows(
        "CREATE OR REPLACE FUNCTION bridge.messages_to_bots(p_since timestamptz, p_until timestamptz)"
        " RETURNS TABLE (message_id uuid, match_id uuid, bot_id uuid, sender_id uuid, created_at timestamptz)"
        " LANGUAGE sql STABLE SECURITY DEFINER AS"
        " 'SELECT NULL::uuid, NULL::uuid, NULL::uuid, NULL::uuid, NULL::timestamptz WHERE false'"
    )
    app.rows("ALTER TABLE profiles ALTER is_bot DROP DEFAULT, ALTER is_bot TYPE integer USING is_bot::integer")
    assert migrate(app.urls.owner).kept == ["conversation", "messages_to_bots"]
    app.rows("ALTER TABLE profiles DROP first_name")
    assert migrate(app.urls.owner, runtime_role=SERVICE).kept == ["conversation", "messages_to_bots"]
    [finding] = check_postgresql(app.urls.service, describe=str, wanted=lambda name: name == "app_tables")
    assert finding.ok, finding


def test_a_table_without_the_column_content_has_no_trigger_on_edits(app: App) -> None:
    """An app that reads and writes its texts elsewhere tells of edits itself; `migrate` and `check` ask for no more."""
    migrate(app.urls.owner)
    app.rows("DROP TRIGGER bridge_after_edit ON messages; ALTER TABLE messages RENAME content TO body")
    app.rows(
        "CREATE OR REPLACE FUNCTION bridge.history(p_match uuid, p_covered uuid[], p_lines integer)"
        " RETURNS TABLE (message_id uuid, sender_id uuid, content text, created_at timestamptz, covered boolean)"
        " LANGUAGE sql STABLE SECURITY DEFINER AS 'SELECT w.id, w.sender_id, w.body, w.created_at, true"
        " FROM public.messages w WHERE w.match_id = p_match';"
        "CREATE OR REPLACE FUNCTION bridge.deliver(p_turn bigint, p_message uuid,"
        " p_match uuid, p_bot uuid, p_content text, p_created_at timestamptz) RETURNS uuid LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO public.messages (id, match_id, sender_id, body)"
        " VALUES (p_message, p_match, p_bot, p_content); RETURN p_message; END'"
    )
    report = migrate(app.urls.owner, runtime_role=SERVICE)
    assert (report.kept, report.triggers) == (["deliver", "history"], [])
    [finding] = check_postgresql(app.urls.service, describe=str, wanted=lambda name: name == "triggers")
    assert finding.ok, finding
    app.rows("ALTER TABLE messages ADD content text")
    [finding] = check_postgresql(app.urls.service, describe=str, wanted=lambda name: name == "triggers")
    assert "missing: bridge_after_edit" in finding.detail
    assert migrate(app.urls.owner).triggers == ["bridge_after_edit"]


def test_the_proof_leaves_no_trace(app: App) -> None:
    """It captures a message of a conversation that is there: no event, no notification and no message is left."""
    match = app.match()
    app.write(match, "avant")
    with closing(App(app.urls)) as listener:
        listener.rows("LISTEN bot_events")
        migrate(app.urls.owner)
        listener.rows("SELECT 1")
        assert listener.connection.notifies == []
    assert app.value("SELECT count(*) FROM bridge.events") == 0
    assert app.value("SELECT count(*) FROM messages") == 1


CHANGED: Final = {
    "profiles.is_bot": "ALTER TABLE profiles ALTER is_bot DROP DEFAULT, ALTER is_bot TYPE text USING is_bot::text",
    "messages.sender_id": "ALTER TABLE messages DROP CONSTRAINT messages_sender_id_fkey, ALTER sender_id TYPE text",
    "matches.created_at": (
        "ALTER TABLE matches ALTER created_at DROP DEFAULT, ALTER created_at TYPE bigint"
        " USING extract(epoch FROM created_at)::bigint"
    ),
}


@pytest.mark.parametrize("column", CHANGED)
def test_check_names_a_type_that_was_changed_and_how_the_app_can_write_again(app: App, column: str) -> None:
    """The remedy begins with the statement that lets the app's INSERTs through, which works as it is printed."""
    migrate(app.urls.owner, runtime_role=SERVICE)
    match = app.match()
    app.rows(CHANGED[column])

    def write() -> None:
        if column.startswith("matches"):
            app.people.rows("INSERT INTO matches (user1_id, user2_id) VALUES (%s, %s)", LEA, CAMILLE)
        else:
            app.write(match, "salut")

    with pytest.raises(psycopg2.Error):
        write()
    [finding] = check_postgresql(app.urls.service, describe=str, wanted=lambda name: name == "app_tables")
    assert not finding.ok
    assert f"column {column} has type " in finding.detail
    remedy = re.fullmatch(r"the app's INSERTs may fail now: (ALTER .*) lets them through, .*; then .*", finding.remedy)
    assert remedy is not None, finding.remedy
    app.rows(remedy[1])
    write()
    with pytest.raises(TablesUnfit, match=column):
        migrate(app.urls.owner)
