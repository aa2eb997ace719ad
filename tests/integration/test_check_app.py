"""`check` looks at the app's own tables: what makes a reply fail, what costs, and how to mend a table that changed."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import psycopg2
import psycopg2.errors
import pytest

from tests.integration.test_commands import CAMILLE, LEA, Chat, Operator, failed, found
from tests.support.policy import set_grouping
from tests.support.roles import APP, OWNER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.demo.servers import RedisServer
    from tests.support.roles import Urls


@pytest.fixture
def chat(bridge_database: Urls) -> Iterator[Chat]:
    """Give a database of the app with the bridge in it."""
    set_grouping(bridge_database, 0, opener=0, probability=0)
    with closing(Chat(bridge_database)) as chat:
        yield chat


@pytest.fixture
def operator(bridge_database: Urls, redis_server: RedisServer) -> Operator:
    """Give an operator of that database."""
    return Operator(DATABASE_URL=bridge_database.service, REDIS_URL=redis_server.url())


def look(operator: Operator, name: str) -> dict[str, Any]:
    """Return one of the checks; no other one fails."""
    result = operator("check", "--json")
    assert failed(result) <= {name}
    return found(result, name)


def deliver(chat: Chat) -> None:
    """Insert a reply as a delivery does, and take it back.

    Raises:
      psycopg2.Error: PostgreSQL refused it.
    """
    with closing(psycopg2.connect(chat.urls.admin)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT bridge.deliver(0, gen_random_uuid(), (SELECT id FROM matches LIMIT 1), %s, 'x', now())", (CAMILLE,)
        )


PARTITION: Final = """
    ALTER TABLE messages RENAME TO messages_before;
    CREATE TABLE messages (LIKE messages_before INCLUDING DEFAULTS) PARTITION BY RANGE (created_at);
    CREATE TABLE messages_old PARTITION OF messages FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
    CREATE TABLE messages_new PARTITION OF messages DEFAULT;
"""


@pytest.fixture
def partitioned(app_database: Urls, redis_server: RedisServer) -> Iterator[tuple[Chat, Operator]]:
    """Give a database whose `messages` has partitions, with the bridge in it, and its operator."""
    operator = Operator(DATABASE_URL=app_database.service, REDIS_URL=redis_server.url())
    with closing(Chat(app_database)) as chat:
        chat.people.rows(PARTITION)
        assert operator.by(APP)("migrate", "--runtime-role", "bridge").code == 0
        yield chat, operator


# --- Columns that a reply does not fill ----------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "column"),
    [
        ("ALTER TABLE messages ADD channel text NOT NULL", "channel"),
        ('ALTER TABLE messages ADD "Sent From" text NOT NULL', '"Sent From"'),
        ("ALTER TABLE messages ADD channel text NOT NULL DEFAULT NULL", "channel"),
        ("ALTER TABLE messages ADD channel text CHECK (channel IS NOT NULL)", "channel"),
        ("CREATE DOMAIN word AS text NOT NULL; ALTER TABLE messages ADD channel word", "channel"),
        ("CREATE DOMAIN word AS text CHECK (VALUE IS NOT NULL); ALTER TABLE messages ADD channel word", "channel"),
        (
            (
                "CREATE DOMAIN word AS text NOT NULL; CREATE DOMAIN short AS word CHECK (length(VALUE) < 9);"
                " ALTER TABLE messages ADD channel short"
            ),
            "channel",
        ),
        ("ALTER TABLE messages ALTER id DROP DEFAULT; ALTER TABLE messages ADD n int NOT NULL", "n"),
    ],
)
def test_a_column_that_no_reply_fills_is_named_before_the_first_message(
    operator: Operator, chat: Chat, statement: str, column: str
) -> None:
    """A column that takes no NULL and has no default fails, and a default mends it: then a reply can be inserted."""
    chat.match()
    chat.people.rows(statement)
    with pytest.raises((psycopg2.errors.NotNullViolation, psycopg2.errors.CheckViolation)):
        deliver(chat)

    check = look(operator, "app_columns")

    assert not check["ok"]
    assert f"messages.{column} takes no NULL" in check["detail"]
    statement, _, rest = check["remedy"].partition(" your value, or replace bridge.deliver")
    assert rest
    chat.people.rows(f"{statement} '1'")
    assert look(operator, "app_columns")["remedy"] == ""
    deliver(chat)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE messages ADD channel text",
        "ALTER TABLE messages ADD channel text NOT NULL DEFAULT 'web'",
        "ALTER TABLE messages ADD number bigint NOT NULL GENERATED ALWAYS AS IDENTITY",
        f"ALTER TABLE messages ADD number bigserial; GRANT USAGE ON SEQUENCE messages_number_seq TO {OWNER}",
        "ALTER TABLE messages ADD length integer NOT NULL GENERATED ALWAYS AS (length(content)) STORED",
        "ALTER TABLE messages ADD at timestamptz NOT NULL DEFAULT now()",
        "CREATE DOMAIN word AS text NOT NULL DEFAULT 'web'; ALTER TABLE messages ADD channel word",
        "ALTER TABLE messages ADD channel text NOT NULL; ALTER TABLE messages DROP channel",
        "ALTER TABLE messages ALTER content SET NOT NULL",
        "ALTER TABLE messages ADD channel text UNIQUE CHECK (channel <> '')",
    ],
)
def test_a_column_that_fills_itself_is_well(operator: Operator, chat: Chat, statement: str) -> None:
    """A default, an identity, a generated column and what `deliver` fills need nothing, and a reply can be inserted."""
    chat.match()
    chat.people.rows(statement)
    check = look(operator, "app_columns")
    assert (check["ok"], check["remedy"]) == (True, "")
    deliver(chat)


@pytest.mark.parametrize(
    "statement",
    [
        (
            "ALTER TABLE messages ALTER id DROP DEFAULT, ALTER id TYPE bigint USING 1, ALTER id SET NOT NULL,"
            " ALTER id ADD GENERATED ALWAYS AS IDENTITY"
        ),
        "ALTER TABLE messages DROP created_at, ADD created_at timestamptz GENERATED ALWAYS AS ('-infinity') STORED",
    ],
)
def test_a_column_that_takes_no_value_is_named(operator: Operator, chat: Chat, statement: str) -> None:
    """A column that `deliver` fills and that is GENERATED ALWAYS fails; the remedy's statement can be run as it is."""
    chat.people.rows(statement)
    check = found(operator("check", "--json"), "app_columns")
    assert not check["ok"]
    assert "GENERATED ALWAYS" in check["detail"]
    chat.people.rows(check["remedy"].partition(", or replace")[0])
    assert found(operator("check", "--json"), "app_columns")["remedy"] == ""


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE messages ADD number bigserial",
        (
            "CREATE FUNCTION draw() RETURNS int RETURN 1; REVOKE EXECUTE ON FUNCTION draw FROM PUBLIC;"
            " ALTER TABLE messages ADD number int DEFAULT draw()"
        ),
    ],
)
def test_a_default_that_the_bridges_owner_may_not_use_is_named(operator: Operator, chat: Chat, statement: str) -> None:
    """A sequence or a function of a default takes a right; the remedy grants it, and then a reply can be inserted."""
    chat.match()
    chat.people.rows(statement)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        deliver(chat)
    check = look(operator, "app_columns")
    assert not check["ok"]
    chat.people.rows(check["remedy"].partition(", or replace")[0])
    assert look(operator, "app_columns")["remedy"] == ""
    deliver(chat)


FILL: Final = """
    CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
    CREATE TRIGGER fill {when} ON messages FOR EACH ROW EXECUTE FUNCTION fill();
"""


@pytest.mark.parametrize(
    ("body", "when", "certain"),
    [
        ("NEW.channel := 'web'; RETURN NEW;", "BEFORE INSERT", False),
        ('NEW := jsonb_populate_record(NEW, \'{"channel": "web"}\'); RETURN NEW;', "BEFORE INSERT OR UPDATE", False),
        ('RETURN jsonb_populate_record(NEW, \'{"channel": "web"}\');', "BEFORE INSERT", False),
        ("NEW.created_at := now(); RETURN NEW;", "BEFORE INSERT", True),
        ("NEW.channel := 'web'; RETURN NEW;", "BEFORE UPDATE", True),
        ("NEW.channel := 'web'; RETURN NEW;", "AFTER INSERT", True),
    ],
)
def test_a_trigger_may_fill_the_column(operator: Operator, chat: Chat, body: str, when: str, *, certain: bool) -> None:
    """Where a BEFORE INSERT trigger may fill the column, `check` cannot tell; a trigger that cannot excuses nothing."""
    chat.people.rows("ALTER TABLE messages ADD channel text NOT NULL")
    chat.people.rows(FILL.format(body=body, when=when))
    check = look(operator, "app_columns")
    assert check["ok"] is not certain
    assert "messages.channel" in check["detail"]
    if not certain:
        assert "cannot tell" in check["detail"]
        assert "fill may" in check["detail"]
        assert "validate" in check["remedy"]
    chat.people.rows("ALTER TABLE messages DISABLE TRIGGER fill")
    assert not look(operator, "app_columns")["ok"]


def test_a_default_that_reads_the_session_is_no_certain_one(operator: Operator, chat: Chat) -> None:
    """A default that reads settings, as `auth.uid()` does, may be NULL for the bridge: a case for validate."""
    chat.people.rows(
        "CREATE FUNCTION uid() RETURNS uuid LANGUAGE sql STABLE AS"
        " $$ SELECT nullif(current_setting('request.sub', true), '')::uuid $$"
    )
    for default in ("uid()", "current_setting('request.sub', true)::uuid"):
        chat.people.rows(f"ALTER TABLE messages DROP IF EXISTS tenant, ADD tenant uuid DEFAULT {default}")
        assert look(operator, "app_columns")["remedy"] == ""
        chat.people.rows("ALTER TABLE messages ALTER tenant SET NOT NULL")
        check = look(operator, "app_columns")
        assert (check["ok"], "messages.tenant" in check["detail"]) == (True, True)
        assert "validate" in check["remedy"]


def test_a_deliver_of_the_apps_may_fill_the_column(operator: Operator, chat: Chat) -> None:
    """What a replaced `deliver` fills, `check` cannot tell."""
    chat.people.rows("ALTER TABLE messages ADD channel text NOT NULL")
    chat.rows(
        """
        CREATE OR REPLACE FUNCTION bridge.deliver(p_turn bigint, p_message uuid, p_match uuid, p_bot uuid,
            p_content text, p_created_at timestamptz) RETURNS uuid LANGUAGE sql SECURITY DEFINER AS $$
            INSERT INTO public.messages (id, match_id, sender_id, content, created_at, channel)
            VALUES (p_message, p_match, p_bot, p_content, p_created_at, 'bot') RETURNING id $$
        """
    )
    check = look(operator, "app_columns")
    assert check["ok"]
    assert "the app replaced bridge.deliver" in check["detail"]
    assert "validate" in check["remedy"]


def test_a_column_of_a_partitioned_table(partitioned: tuple[Chat, Operator]) -> None:
    """The column of the table fails; one of a partition alone is a case for validate."""
    chat, operator = partitioned
    chat.people.rows("ALTER TABLE messages ADD channel text; ALTER TABLE messages_new ALTER channel SET NOT NULL")
    check = look(operator, "app_columns")
    assert (check["ok"], "in a partition" in check["detail"]) == (True, True)
    chat.people.rows("ALTER TABLE messages ALTER channel SET NOT NULL")
    assert not look(operator, "app_columns")["ok"]


def test_columns_are_named_before_the_installation(app_database: Urls, redis_server: RedisServer) -> None:
    """Before `migrate` the column is named, too."""
    with closing(Chat(app_database)) as chat:
        chat.people.rows("ALTER TABLE messages ADD channel text NOT NULL")
        operator = Operator(DATABASE_URL=app_database.service, REDIS_URL=redis_server.url())
        assert "app_columns" in failed(operator("check", "--json"))


# --- Triggers that notify beside the bridge's ----------------------------------------------------


NOTIFIER: Final = """
    CREATE {schema}
    CREATE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql AS $body$ BEGIN {body} RETURN NEW; END $body$;
    CREATE TRIGGER {name} {when} EXECUTE FUNCTION {call};
"""

SAY: Final = "PERFORM pg_notify('bot_events', NEW.content);"
SAY_ARGUMENT: Final = "PERFORM pg_notify(TG_ARGV[0], NEW.content);"
MATCHES: Final = "AFTER INSERT ON matches FOR EACH ROW"

NOTIFIERS: Final = {
    "predecessor": {"body": "PERFORM pg_notify('bot_events', json_build_object('text', NEW.content)::text);"},
    "match": {"body": "PERFORM pg_notify('new_match', row_to_json(NEW)::text);", "when": MATCHES},
    "quoted name": {"name": '"Notify Bot"', "body": SAY},
    "other schema": {
        "schema": "SCHEMA elsewhere;",
        "function": "elsewhere.notify_bot()",
        "call": "elsewhere.notify_bot()",
        "body": SAY,
    },
    "upper case": {"body": "PERFORM PG_NOTIFY('bot_events', NEW.content);"},
    "qualified": {"body": "PERFORM pg_catalog.pg_notify('bot_events', NEW.content);"},
    "execute format": {"body": "EXECUTE format('NOTIFY bot_events, %L', NEW.content);"},
    "execute identifier": {"body": "EXECUTE format('NOTIFY %I, %L', 'bot_events', NEW.content);"},
    "upper case statement": {"body": "EXECUTE 'NOTIFY BOT_EVENTS, ' || quote_literal(NEW.content);"},
    "plain statement": {"body": "NOTIFY bot_events;"},
    "statement level": {
        "body": "PERFORM pg_notify('bot_events', '');",
        "when": "AFTER INSERT ON messages FOR EACH STATEMENT",
    },
    "before": {"body": SAY, "when": "BEFORE INSERT ON messages FOR EACH ROW"},
    "argument": {"body": SAY_ARGUMENT, "call": "notify_bot('bot_events')"},
    "second argument": {"body": "PERFORM pg_notify(TG_ARGV[1], NEW.content);", "call": "notify_bot('x', 'bot_events')"},
    "variable": {"body": "DECLARE c text := 'bot_events'; BEGIN PERFORM pg_notify(c, NEW.content); END;"},
    "nested": {
        "schema": "FUNCTION send(c text, t text) RETURNS void LANGUAGE sql AS $$ SELECT pg_notify(c, t) $$;",
        "body": "PERFORM send('bot_events', NEW.content);",
    },
    "nested atomic": {
        "schema": "FUNCTION send(t text) RETURNS void BEGIN ATOMIC SELECT pg_notify('bot_events', t); END;",
        "body": "PERFORM send(NEW.content);",
    },
}  # fmt: skip

SILENT: Final = {
    "another channel": {"body": "PERFORM pg_notify('bot_events_log', NEW.content);"},
    "another argument": {"body": SAY_ARGUMENT, "call": "notify_bot('bot_events_log')"},
    "a comment": {"body": "-- PERFORM pg_notify('bot_events', NEW.content);\n /* NOTIFY bot_events */"},
    "no notification": {"body": "INSERT INTO matches (user1_id) SELECT NULL WHERE 'bot_events' = 'new_match';"},
}


def lay(chat: Chat, parts: dict[str, str]) -> str:
    """Make a trigger with its function; return the trigger's name."""
    whole = {
        "schema": "SCHEMA unused;",
        "function": "notify_bot()",
        "name": "notify_bot",
        "when": "AFTER INSERT ON messages FOR EACH ROW",
        "call": "notify_bot()",
        **parts,
    }
    chat.rows(NOTIFIER.format(**whole))
    return whole["name"]


@pytest.mark.parametrize("kind", NOTIFIERS)
def test_a_trigger_that_notifies_beside_the_bridge_is_named(operator: Operator, chat: Chat, kind: str) -> None:
    """`check` names the trigger and its table, what it costs and the statement that drops it; dropped, all is well."""
    name = lay(chat, NOTIFIERS[kind])

    check = look(operator, "app_triggers")

    assert check["ok"]
    assert f"{name} on public." in check["detail"]
    for cost in ("8,000 bytes", "NOTIFY lock", "LISTEN"):
        assert cost in check["remedy"]
    chat.rows(check["remedy"].partition(" (")[0])
    assert look(operator, "app_triggers")["remedy"] == ""


@pytest.mark.parametrize("kind", SILENT)
def test_a_trigger_that_rings_nothing_of_ours_is_left_alone(operator: Operator, chat: Chat, kind: str) -> None:
    """Another channel, a comment and a word that looks like a channel's are none of the bridge's business."""
    lay(chat, SILENT[kind])
    assert look(operator, "app_triggers")["remedy"] == ""


def test_a_disabled_trigger_does_not_count(operator: Operator, chat: Chat) -> None:
    """A disabled trigger costs nothing; one that fires ALWAYS does."""
    lay(chat, NOTIFIERS["predecessor"])
    chat.rows("ALTER TABLE messages DISABLE TRIGGER notify_bot")
    assert look(operator, "app_triggers")["remedy"] == ""
    chat.rows("ALTER TABLE messages ENABLE ALWAYS TRIGGER notify_bot")
    assert "DROP TRIGGER notify_bot ON public.messages" in look(operator, "app_triggers")["remedy"]


def test_a_trigger_on_a_partition_is_named(partitioned: tuple[Chat, Operator]) -> None:
    """A trigger of the partitioned table is named once, one of a partition by the partition's name."""
    chat, operator = partitioned
    lay(chat, NOTIFIERS["predecessor"])
    check = look(operator, "app_triggers")
    assert check["detail"].count("notify_bot on") == 1
    chat.rows(check["remedy"].partition(" (")[0])
    chat.rows("CREATE TRIGGER old AFTER INSERT ON messages_new FOR EACH ROW EXECUTE FUNCTION notify_bot()")
    assert "DROP TRIGGER old ON public.messages_new" in look(operator, "app_triggers")["remedy"]


def test_the_predecessors_trigger_stays_until_the_bridges_are_there(
    app_database: Urls, redis_server: RedisServer
) -> None:
    """Without the bridge's triggers the bridge hears by the app's: `migrate` comes first."""
    operator = Operator(DATABASE_URL=app_database.service, REDIS_URL=redis_server.url())
    with closing(Chat(app_database)) as chat:
        lay(chat, NOTIFIERS["predecessor"])
        remedy = found(operator("check", "--json"), "app_triggers")["remedy"]
        assert remedy.startswith("run `python -m bridge_service migrate` first, then DROP TRIGGER notify_bot")


# --- Indexes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "instead",
    [
        "",
        "CREATE INDEX partial ON messages (match_id) WHERE content IS NOT NULL",
        "CREATE INDEX expression ON messages ((match_id::text))",
        "CREATE INDEX second ON messages (created_at, match_id)",
        "CREATE INDEX block ON messages USING brin (match_id)",
        (
            "CREATE INDEX invalid ON messages (match_id);"
            " UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'invalid'::regclass"
        ),
    ],
)
def test_an_index_for_conversations_is_advised(operator: Operator, chat: Chat, instead: str) -> None:
    """Without an index that begins with `match_id` and serves every row, one is advised; the statement works."""
    chat.rows("DROP INDEX messages_match_id_created_at")
    chat.rows(instead or "SELECT 1")
    check = look(operator, "app_indexes")
    assert check["ok"]
    assert check["remedy"] == "CREATE INDEX CONCURRENTLY ON public.messages (match_id, created_at)"
    chat.people.rows(check["remedy"])
    assert look(operator, "app_indexes")["remedy"] == ""


@pytest.mark.parametrize("index", ["(match_id)", "USING hash (match_id)", "(match_id, sender_id) INCLUDE (content)"])
def test_any_index_that_begins_with_the_match_will_do(operator: Operator, chat: Chat, index: str) -> None:
    """Which columns follow does not matter."""
    chat.people.rows(f"DROP INDEX messages_match_id_created_at; CREATE INDEX ON messages {index}")
    assert look(operator, "app_indexes")["remedy"] == ""


def test_an_index_for_ids_is_advised(operator: Operator, chat: Chat) -> None:
    """A table without its primary key is looked through for each id; the statements for all of them work."""
    chat.people.rows(
        "ALTER TABLE messages DROP CONSTRAINT messages_pkey; ALTER TABLE matches DROP CONSTRAINT matches_pkey CASCADE;"
        " ALTER TABLE profiles DROP CONSTRAINT profiles_pkey CASCADE"
    )
    check = look(operator, "app_indexes")
    assert check["ok"]
    for table in ("messages", "matches", "profiles"):
        assert f"{table}(id)" in check["detail"]
    for statement in check["remedy"].split("; "):
        assert statement.startswith("CREATE UNIQUE INDEX CONCURRENTLY ON public.")
        chat.people.rows(statement)
    assert look(operator, "app_indexes")["remedy"] == ""


def test_the_indexes_of_a_partitioned_table(partitioned: tuple[Chat, Operator]) -> None:
    """Each partition needs its index, its own or the table's; a partitioned table takes the statement as it is."""
    chat, operator = partitioned
    chat.people.rows("CREATE INDEX ON messages (id); CREATE INDEX ON messages_old (match_id)")
    remedy = look(operator, "app_indexes")["remedy"]
    statement, _, costs = remedy.partition(" (on a partitioned table")
    assert statement == "CREATE INDEX ON public.messages (match_id, created_at)"
    assert costs
    chat.people.rows("CREATE INDEX ON messages_new (match_id)")
    assert look(operator, "app_indexes")["remedy"] == ""
    chat.people.rows("DROP INDEX messages_new_match_id_idx")
    chat.people.rows(statement)
    assert look(operator, "app_indexes")["remedy"] == ""


# --- A column that is gone -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "column", "failing"),
    [
        ("profiles", "first_name", {"messages", "matches"}),
        ("profiles", "is_bot", {"messages", "matches"}),
        ("matches", "user2_id", {"messages", "matches"}),
        ("messages", "sender_id", {"messages"}),
        ("messages", "match_id", {"messages"}),
        ("messages", "content", set()),
    ],
)
def test_a_renamed_column_is_mended_step_by_step(
    operator: Operator, chat: Chat, table: str, column: str, failing: set[str]
) -> None:
    """The remedy first lets the app's failing INSERTs through, then mends; each of its steps works as written."""
    match = chat.match()
    chat.people.rows(f"ALTER TABLE {table} RENAME COLUMN {column} TO renamed")
    inserts = {
        "matches": f"INSERT INTO matches (user1_id, user2_id) VALUES ('{LEA}', '{CAMILLE}')",  # noqa: S608
        "messages": f"INSERT INTO messages (match_id, sender_id, content) VALUES ('{match}', '{LEA}', 'x')",  # noqa: S608
    }
    inserts |= {table: inserts[table].replace(column, "renamed")} if table in inserts else {}
    for name, insert in inserts.items():
        if name in failing:
            with pytest.raises(psycopg2.errors.UndefinedColumn):
                chat.people.rows(insert)
        else:
            chat.people.rows(insert)

    check = look(operator, "app_tables")

    assert not check["ok"]
    told, _, fails = check["detail"].partition(": ")
    assert told == f"{table} has no column {column}"
    assert {name for name in inserts if f"public.{name}" in fails} == failing
    mend, enable = check["remedy"], "SELECT 1"
    if failing:
        first, mend, enable, replay = mend.removeprefix("let the app's INSERTs through first: ").split(" then ")
        assert replay.startswith("`replay --since`")
        chat.people.rows(first.partition(" (or")[0])
        for insert in inserts.values():
            chat.people.rows(insert)
        # Only what fails now has to be let through.
        assert found(operator("check", "--json"), "app_tables")["detail"] == told
    chat.people.rows(mend.partition(" (ADD")[0].replace("its new name", "renamed"))
    chat.people.rows(enable.rstrip(","))
    assert failed(operator("check", "--json")) == set()


def test_a_renamed_name_is_mended_by_a_function_of_the_apps(operator: Operator, chat: Chat) -> None:
    """Where only functions of the adapter read the column, replacing them mends it, too."""
    match = chat.match()
    chat.people.rows("ALTER TABLE profiles RENAME COLUMN first_name TO called")
    assert "or replace bridge.conversation by" in look(operator, "app_tables")["remedy"]
    [[text]] = chat.rows("SELECT pg_get_functiondef('bridge.conversation'::regproc)")
    chat.rows(text.replace("first_name", "called"))
    assert failed(operator("check", "--json")) == set()
    message = str(uuid4())
    chat.people.rows(
        "INSERT INTO messages (id, match_id, sender_id, content) VALUES (%s, %s, %s, 'x')", message, match, LEA
    )
    assert chat.known() == [message]
