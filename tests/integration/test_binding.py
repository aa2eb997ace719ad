"""An installation stays with the app's tables that it is bound to, whatever a search path says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest

from bridge_service.checks.postgresql import check_postgresql
from bridge_service.demo.binaries import postgresql_binaries
from bridge_service.errors import DatabaseRefused
from bridge_service.install.files import TRIGGERS
from bridge_service.install.plan import migrate, plan
from bridge_service.install.uninstall import uninstall
from tests.support.app import App
from tests.support.databases import DEMO_FOLDER, execute
from tests.support.policy import set_grouping
from tests.support.roles import APP, OWNER, ROOT, SERVICE
from tests.support.store import store_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.checks.finding import Finding
    from bridge_service.demo.servers import PostgresServer
    from tests.support.roles import Urls

TABLES: Final = ("profiles", "matches", "messages")
LOOKS: Final = {"app_tables", "schema", "rights", "row_security", "triggers", "sequences"}


@pytest.fixture
def app(bridge_database: Urls) -> Iterator[App]:
    """Give the app, on a database with the bridge."""
    with closing(App(bridge_database)) as app:
        yield app


def second_schema(app: App, name: str = "acme") -> None:
    """Make a schema with tables of the same names and people, which the bridge's owner may use as it may the first."""
    app.rows(f"CREATE SCHEMA {name} AUTHORIZATION {APP}; GRANT USAGE ON SCHEMA {name} TO {OWNER}, {SERVICE}")
    texts = [(DEMO_FOLDER / file).read_text(encoding="utf-8") for file in ("app.sql", "people.sql")]
    execute(app.urls.app, f"SET search_path = {name}", f"SET search_path = {name}; {texts[0]} {texts[1]}")
    app.rows(f"GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO {OWNER}")
    app.rows(f"GRANT TRIGGER ON {name}.matches, {name}.messages TO {OWNER}; GRANT INSERT ON {name}.messages TO {OWNER}")


def grant_again(app: App) -> None:
    """Grant on tables that were made anew what the page grants on the first ones."""
    app.rows(f"GRANT SELECT ON profiles, matches, messages TO {OWNER}")
    app.rows(f"GRANT TRIGGER ON matches, messages TO {OWNER}; GRANT INSERT ON messages TO {OWNER}")


def checked(url: str) -> dict[str, Finding]:
    """Return what `check` finds of the schema and the app's tables."""
    return {finding.name: finding for finding in check_postgresql(url, describe=str, wanted=lambda name: name in LOOKS)}


def all_ok(url: str) -> bool:
    """Tell whether each of these looks was made and found nothing."""
    found = checked(url)
    return found.keys() == LOOKS and all(finding.ok for finding in found.values())


def command(url: str, *words: str) -> tuple[int, str, str]:
    """Run a command of the bridge; its exit code, its output and its errors."""
    done = subprocess.run(
        [sys.executable, "-m", "bridge_service", *words],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": url, "REDIS_URL": "redis://127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def verified(url: str) -> tuple[int, dict[str, Any]]:
    """Run `verify`; its exit code and its numbers."""
    code, out, _ = command(url, "verify", "--json")
    return code, json.loads(out)


def answered(app: App, tables: dict[str, str] | None = None) -> bool:
    """Let a person write in a new conversation and a bot answer; whether the answer stands in the app's table."""
    names = {name: name for name in TABLES} | (tables or {})
    people = dict(app.rows(f"SELECT is_bot, min(id::text) FROM {names['profiles']} GROUP BY 1"))  # noqa: S608 - a test's own
    match, message = str(uuid4()), str(uuid4())
    app.people.rows(
        f"INSERT INTO {names['matches']} (id, user1_id, user2_id) VALUES (%s, %s, %s)",  # noqa: S608
        match,
        people[False],
        people[True],
    )
    app.people.rows(
        f"INSERT INTO {names['messages']} (id, match_id, sender_id, content) VALUES (%s, %s, %s, 'salut')",  # noqa: S608
        message, match, people[False],
    )  # fmt: skip
    set_grouping(app.urls, 0, probability=0)
    with store_on(app.urls) as store:
        store.group()
        for push in store.push_due(10):
            token = uuid4()
            outcome = store.claim(push.turn_id, token)
            if outcome.task is not None:
                store.finish(push.turn_id, token, "coucou", pause=0.0)
    said = f"SELECT content FROM {names['messages']} WHERE match_id = %s AND sender_id = %s"  # noqa: S608
    return app.rows(said, match, people[True]) == [("coucou",)]


# A second schema


def path_of_the_owner(app: App) -> str:
    """Let the search path of the role that migrates lead elsewhere."""
    app.rows(f"ALTER ROLE {OWNER} IN DATABASE {app.urls.name} SET search_path = acme")
    return app.urls.owner


def path_of_the_database(app: App) -> str:
    """Let the search path of every role lead elsewhere."""
    app.rows(f"ALTER DATABASE {app.urls.name} SET search_path = acme, public")
    return app.urls.owner


def path_of_the_url(app: App) -> str:
    """Let the search path in DATABASE_URL lead elsewhere."""
    return f"{app.urls.owner}?options=-c%20search_path%3Dacme"


@pytest.mark.parametrize("path", [path_of_the_owner, path_of_the_database, path_of_the_url])
def test_a_search_path_that_leads_to_other_tables_is_refused(app: App, path: Any) -> None:  # noqa: ANN401
    """`migrate` names the bound table and the found one, and the first schema's messages go on being answered."""
    second_schema(app)
    url = path(app)
    before = app.rows("SELECT tgrelid, tgname FROM pg_trigger ORDER BY 1, 2")
    for run in (migrate, plan):
        with pytest.raises(DatabaseRefused) as error:
            run(url)
        assert "bound to public.messages" in str(error.value)
        assert "finds acme.messages" in str(error.value)
        assert "\n" not in str(error.value)
    assert app.rows("SELECT tgrelid, tgname FROM pg_trigger ORDER BY 1, 2") == before
    code, _, complaint = command(url, "migrate")
    assert (code, complaint.count("\n")) == (1, 1)
    assert answered(app, {name: f"public.{name}" for name in TABLES})
    assert all_ok(app.urls.service)


def test_one_other_table_is_enough_to_be_refused(app: App) -> None:
    """A schema of the search path that has only `messages` would part the tables."""
    app.rows(f"CREATE SCHEMA acme; GRANT USAGE ON SCHEMA acme TO {OWNER}; CREATE TABLE acme.messages (LIKE messages)")
    app.rows(f"ALTER ROLE {OWNER} IN DATABASE {app.urls.name} SET search_path = acme, public")
    with pytest.raises(DatabaseRefused, match=r"bound to public\.messages, and the search_path finds acme\.messages"):
        migrate(app.urls.owner)


def test_the_search_path_of_the_runtime_role_has_no_effect(app: App) -> None:
    """`check` and `verify` look at the bound tables, and find a message there that was not captured."""
    second_schema(app)
    app.rows(f"ALTER ROLE {SERVICE} IN DATABASE {app.urls.name} SET search_path = acme")
    assert answered(app)
    assert all_ok(app.urls.service)
    assert "public.messages" in checked(app.urls.service)["app_tables"].detail
    assert verified(app.urls.service)[0] == 0

    app.rows("ALTER TABLE public.messages RENAME COLUMN content TO words")
    assert checked(app.urls.service)["app_tables"].ok is False
    app.rows("ALTER TABLE public.messages RENAME COLUMN words TO content")
    app.rows("ALTER TABLE public.messages DISABLE TRIGGER bridge_after_message")
    app.write(app.match(), "perdu")
    code, numbers = verified(app.urls.service)
    assert (code, numbers["unaccounted"]) == (1, 1)
    assert checked(app.urls.service)["triggers"].ok is False


def test_an_uninstalled_bridge_may_move(app: App) -> None:
    """After `uninstall` the search path alone decides."""
    second_schema(app)
    uninstall(app.urls.owner)
    report = migrate(path_of_the_owner(app), runtime_role=SERVICE)
    assert report.bound == ["acme.profiles", "acme.matches", "acme.messages"]
    assert answered(app, {name: f"acme.{name}" for name in TABLES})


def test_a_search_path_that_finds_nothing_is_no_hindrance(app: App) -> None:
    """The bound tables are known without it."""
    app.rows(f"CREATE SCHEMA empty; ALTER ROLE {OWNER} IN DATABASE {app.urls.name} SET search_path = empty")
    app.rows("DROP FUNCTION bridge.deliver")
    assert migrate(app.urls.owner).functions == ["deliver"]
    assert answered(app)
    assert all_ok(app.urls.service)


# Tables that go, come and change their names


@pytest.mark.parametrize("dropped", [("messages",), ("messages", "matches"), ("messages", "matches", "profiles")])
def test_a_table_that_was_dropped_and_made_anew_is_bound_anew(app: App, dropped: tuple[str, ...]) -> None:
    """`check` and `verify` say what happened, and `migrate` binds to the new table, lays its triggers and says so."""
    assert answered(app)
    app.people.rows(f"DROP TABLE {', '.join(dropped)}, typing_events CASCADE" if has_typing(app) else
                    f"DROP TABLE {', '.join(dropped)} CASCADE")  # fmt: skip
    text = (DEMO_FOLDER / "app.sql").read_text(encoding="utf-8").replace("CREATE TABLE ", "CREATE TABLE IF NOT EXISTS ")
    app.people.rows(text.replace("CREATE INDEX ", "CREATE INDEX IF NOT EXISTS "))
    if "profiles" in dropped:
        app.people.rows((DEMO_FOLDER / "people.sql").read_text(encoding="utf-8"))
    grant_again(app)

    found = checked(app.urls.service)
    assert found["app_tables"].ok is False
    assert "public.messages was dropped and made anew" in found["app_tables"].detail
    assert "migrate" in found["app_tables"].remedy
    assert found["triggers"].ok is False
    assert command(app.urls.service, "verify")[0] == 1
    assert app.value("SELECT bridge.triggers_installed()") is False

    report = migrate(app.urls.owner)
    assert report.bound == [f"public.{name}" for name in TABLES]
    assert set(report.triggers) <= set(TRIGGERS)
    assert answered(app)
    assert all_ok(app.urls.service)
    assert migrate(app.urls.owner).bound == []


def has_typing(app: App) -> bool:
    """Tell whether the app has a table of typing indicators."""
    return bool(app.value("SELECT to_regclass('typing_events') IS NOT NULL"))


@pytest.mark.parametrize("table", TABLES)
def test_a_renamed_table_is_named_and_followed(app: App, table: str) -> None:
    """`check` names the old name and the new one, and `migrate` lays the functions for the new one."""
    assert answered(app)
    app.rows(f'ALTER TABLE {table} RENAME TO "Les {table}"')
    finding = checked(app.urls.service)["app_tables"]
    assert finding.ok is False
    assert f'public.{table} is now called public."Les {table}"' in finding.detail
    assert ("INSERTs fail" in finding.detail) == (table != "messages")
    assert [name for name, other in checked(app.urls.service).items() if not other.ok] == ["app_tables"]
    code, out, complaint = command(app.urls.service, "verify", "--json")
    assert code == 1
    assert f'public."Les {table}"' in complaint
    assert "Traceback" not in out + complaint

    report = migrate(app.urls.owner)
    assert f'public."Les {table}"' in report.bound
    assert "conversation" in report.functions or table == "messages"
    assert answered(app, {table: f'"Les {table}"'})
    assert all_ok(app.urls.service)
    assert verified(app.urls.service)[0] == 0
    assert migrate(app.urls.owner) == type(report)()


@pytest.mark.parametrize("follows", [True, False])
def test_a_renamed_schema_is_named_and_followed(app: App, *, follows: bool) -> None:
    """Whether or not the search path has the new name, `migrate` lays the functions for it."""
    assert answered(app)
    app.rows('ALTER SCHEMA public RENAME TO "Chat"; CREATE SCHEMA public')
    if follows:
        app.rows(f"""ALTER DATABASE {app.urls.name} SET search_path = '"Chat"'""")
    finding = checked(app.urls.service)["app_tables"]
    assert finding.ok is False
    assert 'public.messages is now called "Chat".messages' in finding.detail
    migrate(app.urls.owner)
    assert answered(app, {name: f'"Chat".{name}' for name in TABLES})
    assert all_ok(app.urls.service)


def test_another_table_under_the_old_name_is_not_taken_for_it(app: App) -> None:
    """The bound table was renamed away: `check` says so, `migrate` refuses, and follows once the old one is gone."""
    assert answered(app)
    app.people.rows(
        "ALTER TABLE messages RENAME TO messages_old; CREATE TABLE messages (LIKE messages_old INCLUDING ALL)"
    )
    grant_again(app)
    finding = checked(app.urls.service)["app_tables"]
    assert finding.ok is False
    assert "public.messages is now called public.messages_old, and another table has its name" in finding.detail
    with pytest.raises(
        DatabaseRefused, match=r"bound to public\.messages_old, and the search_path finds public\.messages"
    ):
        migrate(app.urls.owner)
    app.people.rows("DROP TABLE messages_old")
    assert migrate(app.urls.owner).triggers == [*TRIGGERS][:-1]
    assert answered(app)
    assert all_ok(app.urls.service)


def test_a_view_with_the_old_name_stops_no_migration(app: App) -> None:
    """A table that was renamed behind a view is answered as before, and `migrate` lets the functions name the table."""
    app.people.rows("ALTER TABLE profiles RENAME TO people; CREATE VIEW profiles AS SELECT * FROM people")
    app.people.rows(f"GRANT SELECT ON profiles TO {OWNER}")
    assert answered(app)
    finding = checked(app.urls.service)["app_tables"]
    assert (finding.ok, "migrate" in finding.remedy) == (True, True)
    assert verified(app.urls.service)[0] == 0
    assert migrate(app.urls.owner).bound == ["public.people", "public.matches", "public.messages"]
    assert answered(app)
    assert all_ok(app.urls.service)


# What comes from elsewhere


def test_a_restored_database_is_bound_to_its_own_tables(app: App, postgres: PostgresServer) -> None:
    """Dumped with its data and restored where the tables have other identities, it needs no `migrate`."""
    assert answered(app)
    folder = postgresql_binaries()
    dump = subprocess.run([folder / "pg_dump", app.urls.admin], capture_output=True, check=True).stdout
    name = f"test_{uuid4().hex}"
    execute(postgres.url(), f'CREATE DATABASE "{name}" OWNER {APP}', f'GRANT CREATE ON DATABASE "{name}" TO {OWNER}')
    execute(postgres.url(name), "CREATE TABLE shift_the_identities (id int)", "CREATE TABLE more (id int)")
    subprocess.run(
        [folder / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", postgres.url(name)],
        input=dump,
        capture_output=True,
        check=True,
    )
    with closing(App(type(app.urls)(postgres.url(name)))) as restored:
        identity = "SELECT messages::oid FROM bridge.installation"
        assert restored.value(identity) == restored.value("SELECT 'public.messages'::regclass::oid")
        assert restored.value(identity) != app.value(identity)
        assert all_ok(restored.urls.service)
        report = migrate(restored.urls.owner)
        assert report == type(report)()
        assert answered(restored)
        assert verified(restored.urls.service)[0] == 0
    execute(postgres.url(), f'DROP DATABASE "{name}" WITH (FORCE)')


def as_before(app: App, schema: str) -> None:
    """Take out of an installation what migration 0006 noted, and let the functions name this schema as they did."""
    app.rows("ALTER TABLE bridge.installation DROP profiles, DROP matches, DROP messages, DROP laid_for")
    app.rows("DELETE FROM bridge.migrations WHERE number = 6")
    app.rows(
        "CREATE OR REPLACE FUNCTION bridge.row_security() RETURNS jsonb LANGUAGE sql SECURITY DEFINER AS"
        f" $f$ SELECT to_jsonb(to_regclass($app${schema}.profiles$app$)::text) $f$"
    )
    app.rows(f"ALTER FUNCTION bridge.row_security() OWNER TO {OWNER}")


@pytest.mark.parametrize("triggers", [True, False])
def test_an_older_installation_is_bound_to_the_tables_that_it_serves(app: App, *, triggers: bool) -> None:
    """They are where its triggers sit, else what its functions name; another search path is refused at once."""
    second_schema(app)
    as_before(app, "public")
    if not triggers:
        for name, table in (("after_match", "matches"), ("after_message", "messages"), ("before_message", "messages")):
            app.rows(f"DROP TRIGGER bridge_{name} ON public.{table}")
    with pytest.raises(DatabaseRefused, match=r"bound to public\.messages, and the search_path finds acme\.messages"):
        migrate(path_of_the_url(app))
    assert checked(app.urls.service)["schema"].ok is False
    assert migrate(app.urls.owner).bound == [f"public.{name}" for name in TABLES]
    assert answered(app)
    assert all_ok(app.urls.service)


def test_an_older_installation_with_triggers_in_two_schemas_is_told(app: App) -> None:
    """An older `migrate` moved it silently: the functions tell where to, and `check` names the triggers left behind."""
    second_schema(app)
    as_before(app, "acme")
    app.rows("CREATE TRIGGER bridge_after_message AFTER INSERT ON acme.messages"
             " FOR EACH ROW EXECUTE FUNCTION bridge.after_message()")  # fmt: skip
    assert migrate(path_of_the_owner(app)).bound == [f"acme.{name}" for name in TABLES]
    assert answered(app, {name: f"acme.{name}" for name in TABLES})
    finding = checked(app.urls.service)["app_tables"]
    assert finding.ok is False
    assert "nothing is answered in public.matches, public.messages" in finding.detail
    app.rows("ALTER TABLE acme.messages DISABLE TRIGGER bridge_after_message")
    assert app.value("SELECT bridge.triggers_installed()") is False  # those of the other schema do not count
    app.rows("ALTER TABLE acme.messages ENABLE TRIGGER bridge_after_message")
    app.rows(finding.remedy.removeprefix("as the tables' owner: ").partition("; or ")[0])
    assert all_ok(app.urls.service)
