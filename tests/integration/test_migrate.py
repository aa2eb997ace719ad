from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Final, Self
from uuid import uuid4

import psycopg2
import pytest

from bridge_service.demo.binaries import postgresql_binaries
from bridge_service.errors import BridgeError, DatabaseBusy, DatabaseRefused, SchemaMissing, StepRefused
from bridge_service.install import files, waiting
from bridge_service.install.files import APP_TABLES, TRIGGERS, digests, steps
from bridge_service.install.migrations import newest_migration
from bridge_service.install.plan import migrate, plan
from bridge_service.install.transaction import ADVISORY_KEY
from bridge_service.install.uninstall import uninstall
from tests.support.app import CAMILLE, LEA, App, Client
from tests.support.databases import DEMO_FOLDER, IN_PUBLIC, copy_of, execute, install, make_template
from tests.support.policy import set_grouping
from tests.support.roles import ADMIN, APP, OWNER, SERVICE, by_hand, role_of
from tests.support.store import store_on
from tests.support.waiting import eventually, wait_for_lock_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bridge_service.demo.servers import PostgresServer
    from bridge_service.machine.steps import Store
    from tests.support.roles import Urls

SEVERAL_SCHEMAS: Final = (
    f"CREATE SCHEMA other; GRANT USAGE ON SCHEMA other TO {OWNER};"
    " CREATE TABLE other.messages (LIKE messages); DROP TABLE messages;"
    " ALTER DATABASE {name} SET search_path = public, other"
)
FOREIGN: Final = f"CREATE SCHEMA bridge AUTHORIZATION {OWNER} CREATE TABLE built_in_1779 (id int)"

SQL_FOLDER: Final = files.SQL_FOLDER


@pytest.fixture
def app(app_database: Urls) -> Iterator[App]:
    """Give the app, on a database without the bridge."""
    with closing(App(app_database)) as app:
        yield app


@pytest.fixture(params=[OWNER, APP])
def installer(request: pytest.FixtureRequest, app: App) -> str:
    """Give the URL of the role that installs and uninstalls: one with the page's rights, or the app's own."""
    return app.urls.of(request.param)


def change(file: Path, old: str, new: str) -> None:
    """Replace a text in a file."""
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def client(name: str) -> Path:
    """Return a program that comes with PostgreSQL."""
    binary = postgresql_binaries() / name
    if not binary.exists():
        pytest.skip(f"there is no {name} beside this PostgreSQL")
    return binary


def dump(url: str, *options: str) -> str:
    """Return all that pg_dump says of a database."""
    done = subprocess.run([client("pg_dump"), *options, url], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    return "\n".join(line for line in lines if not line.startswith(("\\restrict", "\\unrestrict")))


def psql(url: str, script: str) -> str:
    """Run a script as an operator would, and return what psql complains of."""
    options = ("-X", "-v", "ON_ERROR_STOP=1", "-o", os.devnull, "-f", "-")
    words: list[str | Path] = [client("psql"), *options, url]
    return subprocess.run(words, input=script, capture_output=True, text=True, check=False).stderr


def answer(app: App, store: Store, match: str, text: str) -> None:
    """Let a person write, and answer."""
    app.write(match, "salut")
    set_grouping(app.urls, 0)
    store.group()
    [push] = [push for push in store.push_due(10) if push.first]
    token = uuid4()
    store.claim(push.turn_id, token)
    store.finish(push.turn_id, token, text, pause=0.0)


def functions(app: App) -> dict[str, int]:
    """How many functions of each name there are in schema `bridge`."""
    return dict(
        app.rows("SELECT proname::text, count(*) FROM pg_proc WHERE pronamespace = 'bridge'::regnamespace GROUP BY 1")
    )


# Laying


def test_the_first_run_lays_everything_and_the_second_nothing(app: App) -> None:
    """Twice is harmless, and the report says what was done."""
    first = migrate(app.urls.owner)
    assert first.migrations == sorted(file.name for file in (SQL_FOLDER / "migrations").glob("*.sql"))
    assert first.bound == ["public.profiles", "public.matches", "public.messages"]
    assert sorted(first.functions) == sorted(digests(IN_PUBLIC))
    assert set(first.triggers) == set(TRIGGERS)
    before = dump(app.urls.admin)
    second = migrate(app.urls.owner)
    assert (second.migrations, second.functions, second.triggers, second.kept) == ([], [], [], [])
    assert dump(app.urls.admin) == before
    assert set(steps()) <= set(functions(app)) == set(digests(IN_PUBLIC))
    assert set(functions(app).values()) == {1}


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
def test_five_processes_at_once_lay_it_once(app: App, isolation: str) -> None:
    """Whatever isolation the database has by default, one of them does it, and the others find it done."""
    app.rows(f"ALTER DATABASE {_name(app)} SET default_transaction_isolation = '{isolation}'")
    script = "import sys; from bridge_service.install.plan import migrate; print(len(migrate(sys.argv[1]).functions))"
    crew = [
        subprocess.Popen(
            [sys.executable, "-c", script, app.urls.owner], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(5)
    ]
    said = [process.communicate(timeout=60) for process in crew]
    assert [process.returncode for process in crew] == [0] * 5, said
    assert sorted(int(out) for out, _ in said) == [0, 0, 0, 0, len(digests(IN_PUBLIC))]
    assert set(functions(app).values()) == {1}


def test_a_run_that_fails_leaves_nothing(app: App, sql_folder: Path) -> None:
    """All of it is one transaction: a mistake in the last file leaves the database as it was."""
    before = dump(app.urls.admin)
    (sql_folder / "steps" / "zzz.sql").write_text("CREATE OR REPLACE FUNCTION bridge.zzz() RETURNS nonsense", "utf-8")
    with pytest.raises(BridgeError):
        migrate(app.urls.owner)
    assert dump(app.urls.admin) == before


def test_a_new_migration_runs_once(app: App, sql_folder: Path) -> None:
    """The numbers above the last one, in order, each a single time."""
    migrate(app.urls.owner)
    number = newest_migration()
    for step, text in ((1, "CREATE TABLE bridge.note (id int)"), (2, "INSERT INTO bridge.note VALUES (7)")):
        (sql_folder / "migrations" / f"{number + step:04}_note.sql").write_text(text, encoding="utf-8")
    assert migrate(app.urls.owner).migrations == [f"{number + 1:04}_note.sql", f"{number + 2:04}_note.sql"]
    assert migrate(app.urls.owner).migrations == []
    assert app.rows("SELECT id FROM bridge.note") == [(7,)]
    assert newest_migration() == number + 2


def test_an_older_code_leaves_a_newer_migration_alone(app: App) -> None:
    """A database that was migrated by newer code is not taken back."""
    migrate(app.urls.owner)
    app.rows("INSERT INTO bridge.migrations (number, name) VALUES (9000, '9000_future.sql')")
    assert migrate(app.urls.owner).migrations == []


def test_a_function_whose_file_changed_is_laid_anew(app: App, sql_folder: Path) -> None:
    """That one only, and it does what the new file says."""
    migrate(app.urls.owner)
    change(sql_folder / "steps" / "triggers_installed.sql", "count(*) >= 3", "false AND count(*) >= 3")
    assert migrate(app.urls.owner).functions == ["triggers_installed"]
    assert app.value("SELECT bridge.triggers_installed()") is False
    assert migrate(app.urls.owner).functions == []


def test_a_function_that_was_changed_by_hand_is_laid_as_it_was(app: App) -> None:
    """So is one that was dropped: a half-mended database does not survive the next deployment."""
    migrate(app.urls.owner)
    app.rows("CREATE OR REPLACE FUNCTION bridge.triggers_installed() RETURNS boolean LANGUAGE sql AS 'SELECT false'")
    app.rows("DROP FUNCTION bridge.next_due")
    assert sorted(migrate(app.urls.owner).functions) == ["next_due", "triggers_installed"]
    assert app.value("SELECT bridge.triggers_installed()") is True


def test_an_adapter_function_that_the_app_replaced_is_left_alone(app: App, sql_folder: Path) -> None:
    """Even when our file changes, and every run says so."""
    migrate(app.urls.owner)
    app.rows(
        "CREATE OR REPLACE FUNCTION bridge.deliver(p_turn bigint, p_message uuid, p_match uuid, p_bot uuid,"
        " p_content text, p_created_at timestamptz) RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'"
    )
    for _ in range(2):
        report = migrate(app.urls.owner)
        assert (report.kept, report.functions) == (["deliver"], [])
    change(sql_folder / "app" / "deliver.sql", "-- Inserts one", "-- Now inserts one")
    report = migrate(app.urls.owner)
    assert (report.kept, report.functions) == (["deliver"], [])
    assert app.value("SELECT prosrc FROM pg_proc WHERE proname = 'deliver'") == "SELECT NULL::uuid"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("triggers_installed()", "triggers_installed(p_new integer DEFAULT 7)"),
        ("RETURNS boolean", "RETURNS SETOF boolean"),
        ("RETURNS boolean", "RETURNS TABLE (installed boolean)"),
    ],
    ids=["parameter", "set", "table"],
)
def test_a_function_whose_signature_changed_replaces_the_old_one(
    app: App, sql_folder: Path, old: str, new: str
) -> None:
    """Never two of one name, and a role that might call the old one may call the new one."""
    with role_of(app) as role:
        migrate(app.urls.owner, runtime_role=role)
        change(sql_folder / "steps" / "triggers_installed.sql", old, new)
        assert migrate(app.urls.owner).functions == ["triggers_installed"]
        assert functions(app)["triggers_installed"] == 1
        with closing(Client(app.urls.of(role))) as runtime:
            assert runtime.rows("SELECT * FROM bridge.triggers_installed()") == [(True,)]


def test_the_app_s_role_may_call_three_functions_and_nothing_else(app: App) -> None:
    """`app_role` is granted pause, resume and state; a later run without it takes nothing away; PUBLIC gets nothing."""
    granted = (
        "SELECT p.proname::text FROM pg_proc p WHERE p.pronamespace = 'bridge'::regnamespace"
        " AND has_function_privilege(%s, p.oid, 'EXECUTE') ORDER BY 1"
    )
    with role_of(app) as role, role_of(app) as other:
        migrate(app.urls.owner, app_role=role)
        migrate(app.urls.owner)
        calls = {name for (name,) in app.rows(granted, role)} - {name for (name,) in app.rows(granted, other)}
        assert calls == {"pause", "resume", "state"}
        with closing(Client(app.urls.of(role))) as client:
            assert client.rows("SELECT bridge.state(gen_random_uuid())") == [(None,)]


def test_a_role_that_calls_the_steps_may_call_a_new_one(app: App, sql_folder: Path) -> None:
    """An update needs no `--runtime-role` again; and a role that may only look is given nothing."""
    with role_of(app) as role, role_of(app) as reader:
        migrate(app.urls.owner, runtime_role=role, reader_roles=[reader])
        app.rows(f"GRANT EXECUTE ON FUNCTION bridge.triggers_installed() TO {reader}")
        new = "CREATE OR REPLACE FUNCTION bridge.new_step() RETURNS integer LANGUAGE sql AS 'SELECT 7'"
        (sql_folder / "steps" / "new_step.sql").write_text(new, encoding="utf-8")
        migrate(app.urls.owner)
        with closing(Client(app.urls.of(role))) as runtime:
            assert runtime.value("SELECT bridge.new_step()") == 7
        allowed = "SELECT has_function_privilege(%s, 'bridge.new_step()', 'EXECUTE')"
        assert app.value(allowed, reader) is False


def test_an_upgrade_and_the_way_back(app: App, sql_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that live through a newer version's `migrate`, and the older one's after it, answer at every stage.

    The older version lays its own functions again and leaves the newer one's tables and columns, which do no harm.
    """

    def with_newer() -> None:
        monkeypatch.setattr(files, "SQL_FOLDER", sql_folder)

    def with_older() -> None:
        monkeypatch.setattr(files, "SQL_FOLDER", SQL_FOLDER)

    number = newest_migration() + 1
    note = "CREATE TABLE bridge.note (id int); ALTER TABLE bridge.turns ADD COLUMN mood text NOT NULL DEFAULT 'calm'"
    (sql_folder / "migrations" / f"{number:04}_note.sql").write_text(note, encoding="utf-8")
    for file in (each for each in sql_folder.glob("*/*.sql") if each.parent.name != "migrations"):
        change(file, "CREATE OR REPLACE", "-- Newer.\nCREATE OR REPLACE")
    change(sql_folder / "steps" / "next_due.sql", "p_window integer", "p_window integer, p_new integer DEFAULT 7")
    new = "CREATE OR REPLACE FUNCTION bridge.new_step() RETURNS integer LANGUAGE sql AS 'SELECT 7'"
    (sql_folder / "steps" / "new_step.sql").write_text(new, encoding="utf-8")

    with store_on(app.urls) as store:
        with_older()
        migrate(app.urls.owner, runtime_role=SERVICE)
        match = app.match()
        app.rows("DELETE FROM bridge.events")
        for stage, choose in enumerate((with_older, with_newer, with_older, with_newer)):
            choose()
            migrate(app.urls.owner)
            laid = dict(app.rows("SELECT name, digest FROM bridge.laid_functions WHERE name <> 'new_step'"))
            assert laid == {name: digest for name, digest in digests(IN_PUBLIC).items() if name != "new_step"}
            answer(app, store, match, f"coucou {stage}")
            store.next_due()
        assert app.said(match) == [f"coucou {stage}" for stage in range(4)]
        assert app.rows("SELECT DISTINCT mood FROM bridge.turns") == [("calm",)]
        assert app.value("SELECT bridge.verify(30, 10)")["unaccounted"] == 0


def test_a_missing_trigger_is_made_again(app: App) -> None:
    """A dropped object comes back with the next run."""
    migrate(app.urls.owner)
    app.rows("DROP TRIGGER bridge_after_message ON messages")
    assert migrate(app.urls.owner).triggers == ["bridge_after_message"]
    message = app.write(app.match(), "salut")
    assert app.value("SELECT count(*) FROM bridge.events WHERE message_id = %s", message) == 1


# Who may read

UNREADABLE: Final = {
    ("calls", "token"),
    *(("distress", column) for column in ("match_id", "bot_id", "first_at", "last_at", "event_id", "token")),
    ("parts", "content"),
    ("turns", "distress"),
    ("turns", "draft"),
    ("turns", "token"),
    ("turns", "refused"),
    ("turns", "said"),
    ("turns", "withheld"),
}


def hidden_from(app: App, role: str) -> set[tuple[str, str]]:
    """Return the tables and columns of the bridge that a role may not read."""
    return set(
        app.rows(
            "SELECT c.relname::text, a.attname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
            " WHERE c.relnamespace = 'bridge'::regnamespace AND c.relkind = 'r' AND a.attnum > 0"
            " AND NOT has_column_privilege(%s, c.oid, a.attnum, 'SELECT')",
            role,
        )
    )


def readers_of(app: App) -> set[str]:
    """Return the roles that may read each of the readers' tables, and of turns only what is granted by name."""
    granted = (
        "SELECT a.grantee::regrole::text FROM pg_class c CROSS JOIN aclexplode(c.relacl) a"
        " WHERE c.oid = 'bridge.{}'::regclass AND a.privilege_type = 'SELECT' AND a.grantee <> c.relowner"
    )
    readers = {
        role
        for (role,) in app.rows(
            "SELECT DISTINCT a.grantee::regrole::text FROM pg_attribute t CROSS JOIN aclexplode(t.attacl) a"
            " WHERE t.attrelid = 'bridge.turns'::regclass AND a.privilege_type = 'SELECT'"
        )
    }
    for table in ("events", "installation", "migrations", "processes", "incidents"):
        assert {role for (role,) in app.rows(granted.format(table))} - {APP} == readers
    assert app.rows("SELECT relname FROM pg_class WHERE relnamespace = 'bridge'::regnamespace AND relrowsecurity") == []
    return readers


def test_several_roles_may_read(app: App) -> None:
    """Named together or one after the other, each sees every row, of all but drafts and tokens, and keeps seeing it."""
    with role_of(app) as one, role_of(app) as other, role_of(app) as late:
        migrate(app.urls.owner, reader_roles=[one, other])
        assert readers_of(app) == {one, other}
        migrate(app.urls.owner, reader_roles=[late])
        migrate(app.urls.owner)
        assert readers_of(app) == {one, other, late}
        app.write(app.match(), "salut")
        for role in (one, other, late):
            assert {
                (table, column) for table, column in hidden_from(app, role) if table != "laid_functions"
            } == UNREADABLE
            with closing(Client(app.urls.of(role))) as reader:
                assert reader.value("SELECT count(*) FROM bridge.events") == 2


def test_a_reader_whom_it_was_revoked_is_forgotten(app: App, sql_folder: Path) -> None:
    """The page's two lines take it away at once; no later run gives it back, and the others keep it."""
    with role_of(app) as stays, role_of(app) as goes:
        migrate(app.urls.owner, reader_roles=[stays, goes])
        app.rows(f"REVOKE ALL ON ALL TABLES IN SCHEMA bridge FROM {goes}")
        app.rows(f"REVOKE USAGE ON SCHEMA bridge FROM {goes}")
        with closing(Client(app.urls.of(goes))) as reader, pytest.raises(psycopg2.errors.InsufficientPrivilege):
            reader.rows("SELECT FROM bridge.events")
        text = "CREATE TABLE bridge.mood (id int)"
        (sql_folder / "migrations" / f"{newest_migration() + 1:04}_mood.sql").write_text(text, encoding="utf-8")
        migrate(app.urls.owner)
        assert readers_of(app) == {stays}
        app.rows(f"BEGIN; DROP ROLE {goes}; ROLLBACK")  # PostgreSQL drops no role that a right still names
        migrate(app.urls.owner, reader_roles=[stays])
        assert readers_of(app) == {stays}
        app.rows(f"REVOKE ALL ON ALL TABLES IN SCHEMA bridge FROM {stays}")
        migrate(app.urls.owner)
        assert readers_of(app) == set()


def test_an_operators_own_grant_makes_no_reader(app: App, sql_folder: Path) -> None:
    """No run makes more of a table that was granted by hand."""
    with role_of(app) as reader, role_of(app) as granted:
        migrate(app.urls.owner, reader_roles=[reader])
        app.rows(f"GRANT USAGE ON SCHEMA bridge TO {granted}; GRANT SELECT ON bridge.turns TO {granted}")
        text = "CREATE TABLE bridge.mood (id int)"
        (sql_folder / "migrations" / f"{newest_migration() + 1:04}_mood.sql").write_text(text, encoding="utf-8")
        migrate(app.urls.owner)
        assert readers_of(app) == {reader}


def test_a_reader_reads_what_an_upgrade_brings(app: App, sql_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New columns, and a new table, without being named again."""
    with role_of(app) as role:
        migrate(app.urls.owner, reader_roles=[role])
        text = "ALTER TABLE bridge.turns ADD mood text; ALTER TABLE bridge.events ADD mood text"
        (sql_folder / "migrations" / f"{newest_migration() + 1:04}_mood.sql").write_text(text, encoding="utf-8")
        templates = sql_folder / "templates"
        shutil.copytree(files.TEMPLATES, templates)
        monkeypatch.setattr(files, "TEMPLATES", templates)
        change(templates / "let_read.sql", "last_error)", "last_error, mood)")
        migrate(app.urls.owner)
        assert {(table, column) for table, column in hidden_from(app, role) if table != "laid_functions"} == UNREADABLE


# What would be done


def laid_in(urls: Urls) -> str:
    """Return all of the bridge that does not tell of the time."""
    with closing(App(urls)) as app:
        rows = app.rows("SELECT name, digest, source FROM bridge.laid_functions ORDER BY 1")
        rows += app.rows("SELECT number, name FROM bridge.migrations ORDER BY 1")
        return f"{dump(urls.admin, '--schema-only')}{rows}"


def test_the_plan_is_what_migrate_does(app: App, postgres: PostgresServer, app_template: str, sql_folder: Path) -> None:
    """Run by psql it makes the same of a database as `migrate`: a new bridge, and whatever may change in an old one."""
    with ExitStack() as stack:
        typed = App(stack.enter_context(copy_of(postgres, app_template)))
        stack.callback(typed.close)
        runtime, one, other = (stack.enter_context(role_of(app)) for _ in range(3))
        for each in (app, typed):
            stack.callback(each.rows, f"DROP OWNED BY {runtime}, {one}, {other} CASCADE")

        def migrates_alike(**options: object) -> None:
            report, script = plan(typed.urls.owner, **options)  # type: ignore[arg-type]
            assert psql(typed.urls.owner, script) == ""
            assert migrate(app.urls.owner, **options) == report  # type: ignore[arg-type]
            assert laid_in(typed.urls) == laid_in(app.urls)
            assert plan(typed.urls.owner) == plan(app.urls.owner)
            assert plan(typed.urls.owner)[1] == ""

        migrates_alike(runtime_role=runtime, reader_roles=[one])
        migrates_alike(reader_roles=[other])

        number = newest_migration() + 1
        (sql_folder / "migrations" / f"{number:04}_note.sql").write_text("CREATE TABLE bridge.note ()", "utf-8")
        change(sql_folder / "steps" / "triggers_installed.sql", "RETURNS boolean", "RETURNS SETOF boolean")
        change(sql_folder / "steps" / "next_due.sql", "p_window integer", "p_window integer, p_new integer DEFAULT 7")
        change(sql_folder / "app" / "deliver.sql", "-- Inserts one", "-- Now inserts one")
        new = "CREATE OR REPLACE FUNCTION bridge.new_step() RETURNS integer LANGUAGE sql AS 'SELECT 7'"
        (sql_folder / "steps" / "new_step.sql").write_text(new, encoding="utf-8")
        for each in (app, typed):
            each.rows("DROP TRIGGER bridge_after_match ON matches")
            each.rows("DROP FUNCTION bridge.claim")
            each.rows("ALTER FUNCTION bridge.history COST 7")
        report, _ = plan(typed.urls.owner)
        assert (report.kept, report.triggers) == (["history"], ["bridge_after_match"])
        assert sorted(report.functions) == ["claim", "deliver", "new_step", "next_due", "triggers_installed"]
        migrates_alike()


def test_a_plan_changes_nothing_and_locks_no_table(app: App) -> None:
    """`--plan` needs no right, waits for no lock on the app's tables, and runs on a database that takes no writes."""
    before = dump(app.urls.admin)
    app.rows(f"ALTER DATABASE {_name(app)} SET default_transaction_read_only = on")
    with role_of(app) as stranger, closing(psycopg2.connect(app.urls.app)) as holder, holder.cursor() as cursor:
        cursor.execute("SET transaction_read_only = off; LOCK TABLE profiles, matches, messages")
        report, script = plan(app.urls.of(stranger), runtime_role=stranger)
        assert (set(report.triggers), sorted(report.functions)) == (set(TRIGGERS), sorted(digests(IN_PUBLIC)))
        assert "CREATE SCHEMA bridge;" in script
    assert dump(app.urls.admin) == before


def test_a_plan_could_not_change_anything(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever we might once write by mistake while we look, PostgreSQL refuses it."""
    refuse = "bridge_service.install.plan._refuse_another_owner"
    monkeypatch.setattr(refuse, lambda cursor: cursor.execute("CREATE SCHEMA bridge"))
    with pytest.raises(BridgeError, match="read-only transaction"):
        plan(app.urls.owner)


def test_a_plan_that_is_out_of_date_changes_nothing(app: App) -> None:
    """Where `migrate` was faster, psql stops, and what there is stays as it is."""
    _, script = plan(app.urls.owner)
    migrate(app.urls.owner)
    before = dump(app.urls.admin)
    assert 'schema "bridge" already exists' in psql(app.urls.owner, script)
    assert dump(app.urls.admin) == before


# What it expects


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("DROP TABLE messages", "table `messages` was not found"),
        ("ALTER TABLE profiles DROP COLUMN is_bot", "table `profiles` has no column is_bot"),
        (
            "ALTER TABLE messages DROP COLUMN content; ALTER TABLE messages RENAME sender_id TO author",
            "table `messages` has no column content, sender_id",
        ),
        (
            SEVERAL_SCHEMAS,
            "several schemas (public.profiles, public.matches, other.messages)",
        ),
        (FOREIGN, "not the bridge's"),
    ],
    ids=["table", "column", "columns", "schemas", "foreign"],
)
@pytest.mark.parametrize("run", [migrate, plan])
def test_what_is_missing_is_said_in_one_clear_line(
    app: App, spoil: str, words: str, run: Callable[[str], object]
) -> None:
    """And nothing is laid."""
    execute(app.urls.admin, spoil.format(name=_name(app)))
    with pytest.raises(DatabaseRefused) as error:
        run(app.urls.owner)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert app.value("SELECT to_regclass('bridge.turns')") is None


@pytest.mark.parametrize(
    ("grants", "words"),
    [
        ((), "permission denied for database"),
        (("CREATE ON DATABASE {name}",), "permission denied for table messages"),
        (("CREATE ON DATABASE {name}", "TRIGGER ON messages"), "permission denied for table matches"),
    ],
    ids=["schema", "messages", "matches"],
)
def test_a_missing_right_is_said_in_one_clear_line(app: App, grants: tuple[str, ...], words: str) -> None:
    """A role that may not make the schema, or no triggers on the app's tables, is told which right it lacks."""
    with role_of(app, *(grant.format(name=_name(app)) for grant in grants)) as role:
        with pytest.raises(StepRefused) as error:
            migrate(app.urls.of(role))
        assert words in str(error.value)
        assert "\n" not in str(error.value)
        assert app.value("SELECT to_regnamespace('bridge')") is None


@pytest.mark.parametrize("run", [migrate, plan])
def test_who_is_not_the_owner_is_told_who_is(app: App, run: Callable[[str], object]) -> None:
    """The run-time role, whose URL the environment holds from day to day, and one that may not even look."""
    migrate(app.urls.owner, runtime_role=SERVICE)
    before = dump(app.urls.admin)
    for url in (app.urls.service, app.urls.app):
        with pytest.raises(DatabaseRefused, match=f"by {OWNER}: run it with that role in DATABASE_URL"):
            run(url)
    assert dump(app.urls.admin) == before
    run(app.urls.owner)


def test_another_owners_schema_is_not_dropped(app: App) -> None:
    """`uninstall` on a database where `bridge` is another program's refuses, and touches nothing."""
    execute(app.urls.admin, FOREIGN)
    before = dump(app.urls.admin)
    with pytest.raises(DatabaseRefused, match="not the bridge's"):
        uninstall(app.urls.owner)
    assert dump(app.urls.admin) == before


def test_an_empty_schema_that_was_made_for_it_is_used(app: App) -> None:
    """Where only an administrator may make schemas, he makes it beforehand."""
    app.rows(f"CREATE SCHEMA bridge AUTHORIZATION {OWNER}")
    assert uninstall(app.urls.owner)
    app.rows(f"CREATE SCHEMA bridge AUTHORIZATION {OWNER}")
    migrate(app.urls.owner)
    assert app.value("SELECT bridge.triggers_installed()")


@pytest.mark.parametrize(("encoding", "text"), [("SQL_ASCII", "été 😀"), ("LATIN1", "été")])
def test_the_database_may_have_another_encoding(postgres: PostgresServer, encoding: str, text: str) -> None:
    """That of a cluster made without a locale, say: what the database can hold is asked and answered as it is."""
    urls = make_template(postgres, f"test_{encoding.lower()}", encoding=encoding)
    install(urls)
    with (
        closing(psycopg2.connect(urls.app, client_encoding="UTF8")) as app,
        app.cursor() as cursor,
        store_on(urls) as store,
    ):
        app.autocommit = True
        cursor.execute("INSERT INTO matches (user1_id, user2_id) VALUES (%s, %s) RETURNING id", (LEA, CAMILLE))
        [[match]] = cursor.fetchall()
        cursor.execute("INSERT INTO messages (match_id, sender_id, content) VALUES (%s, %s, %s)", (match, LEA, text))
        set_grouping(urls, 0)
        store.group()
        [push] = [push for push in store.push_due(10) if push.first]
        token = uuid4()
        [message] = store.claim(push.turn_id, token).details["messages"]
        assert message["content"] == text
        store.finish(push.turn_id, token, text, pause=0.0)
        cursor.execute("SELECT content FROM messages WHERE sender_id = %s", (CAMILLE,))
        assert cursor.fetchall() == [(text,)]


def test_the_app_s_schema_may_have_any_name(app: App) -> None:
    """Capitals, blanks, dots, quotes, percent signs and braces do no harm: a message is captured and answered."""
    schema = '"My ""app"" v1.2 it\'s 100% {new}"'
    app.rows(f"CREATE SCHEMA {schema}; GRANT USAGE ON SCHEMA {schema} TO {APP}, {OWNER}")
    for table in ("profiles", "matches", "messages"):
        app.rows(f"ALTER TABLE {table} SET SCHEMA {schema}")
    app.rows(f"ALTER DATABASE {_name(app)} SET search_path = {schema}")
    migrate(app.urls.owner, runtime_role=SERVICE)
    assert migrate(app.urls.owner).functions == []
    with closing(App(app.urls)) as inside, store_on(app.urls) as store:
        match = inside.match()
        answer(inside, store, match, "coucou")
        assert inside.said(match) == ["coucou"]
        assert [table["rows"] for table in inside.value("SELECT bridge.row_security()")["tables"]] == ["all"] * 3
    assert uninstall(app.urls.owner)


# Taking out


def test_uninstall_leaves_the_database_as_it_was(app: App, installer: str) -> None:
    """pg_dump finds not a letter changed, twice even; and a second time nothing is left to do."""
    app.write(app.match(), "avant")
    before = dump(app.urls.admin)
    with role_of(app) as runtime, role_of(app) as reader:
        for _ in range(2):
            migrate(installer, runtime_role=runtime, reader_roles=[reader])
            assert uninstall(installer) is True
            assert dump(app.urls.admin) == before
            assert uninstall(installer) is False
    assert dump(app.urls.admin) == before


def test_uninstall_takes_the_triggers_of_partitions_along(app: App) -> None:
    """Its owner owns no partition either; and while one of them is written to, it waits and lets the writer go on."""
    app.people.rows("DROP TABLE messages")
    app.people.rows(
        "CREATE TABLE messages (id uuid DEFAULT gen_random_uuid(), match_id uuid, sender_id uuid, content text,"
        " created_at timestamptz DEFAULT now()) PARTITION BY HASH (match_id)"
    )
    for number in range(2):
        remainder = f"FOR VALUES WITH (MODULUS 2, REMAINDER {number})"
        app.people.rows(f"CREATE TABLE part_{number} PARTITION OF messages {remainder}")
    execute(app.urls.admin, *by_hand("GRANT", app.urls.name), f"GRANT TRIGGER ON part_0, part_1 TO {OWNER}")
    before = dump(app.urls.admin)
    migrate(app.urls.owner)
    match = app.match()
    app.write(match, "salut")
    assert app.value("SELECT count(*) FROM bridge.events WHERE kind = 'message'") == 1
    with closing(psycopg2.connect(app.urls.app)) as session, session.cursor() as cursor:
        cursor.execute("INSERT INTO messages (match_id, sender_id) VALUES (%s, %s)", (match, LEA))
        runner = threading.Thread(target=uninstall, args=(app.urls.owner,))
        runner.start()
        eventually(lambda: app.value("SELECT count(*) FROM pg_locks WHERE NOT granted") >= 1)
        cursor.execute("INSERT INTO messages (match_id, sender_id) SELECT gen_random_uuid(), %s FROM pg_sleep(0.5),"
                       " generate_series(1, 20)", (LEA,))  # fmt: skip
        session.commit()
    runner.join(20)
    app.rows("TRUNCATE messages, matches")
    assert dump(app.urls.admin) == before


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("CREATE VIEW figures AS SELECT state, due_at FROM bridge.turns", "view figures (on "),
        ("CREATE TABLE notes (turn_id bigint REFERENCES bridge.turns)", "constraint notes_turn_id_fkey on table notes"),
        ("ALTER TABLE matches ADD seen timestamptz DEFAULT bridge.now()", "default value for column seen"),
        (
            "CREATE TRIGGER mine AFTER INSERT ON profiles FOR EACH ROW EXECUTE FUNCTION bridge.after_match()",
            "trigger mine on table profiles (on function bridge.after_match())",
        ),
        ("ALTER TRIGGER bridge_after_match ON matches RENAME TO mine", "trigger mine on table matches"),
        ("CREATE FUNCTION peek(bridge.turns) RETURNS bigint LANGUAGE sql AS 'SELECT $1.id'", "function peek("),
        ("CREATE TABLE more () INHERITS (bridge.incidents)", "table more (on table bridge.incidents)"),
    ],
    ids=["view", "key", "default", "trigger", "renamed", "function", "heir"],
)
def test_uninstall_takes_nothing_else_along(app: App, installer: str, statement: str, named: str) -> None:
    """Objects that depend on the bridge are named in one line, and no trigger is dropped before."""
    migrate(installer)
    app.rows(statement)
    before = dump(app.urls.admin)
    with pytest.raises(DatabaseRefused) as error:
        uninstall(installer)
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert dump(app.urls.admin) == before


def test_what_lies_in_the_schema_goes_with_it(app: App, installer: str) -> None:
    """A view, a trigger and a function that were added to the bridge's own schema and tables hold nothing up."""
    app.rows("CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    before = dump(app.urls.admin)
    migrate(installer)
    app.rows("CREATE VIEW bridge.figures AS SELECT t.state, bridge.now() AS at FROM bridge.turns t")
    app.rows("CREATE TRIGGER mine AFTER INSERT ON bridge.turns FOR EACH ROW EXECUTE FUNCTION mine()")
    app.rows("CREATE FUNCTION bridge.mine(bridge.turns) RETURNS bigint LANGUAGE sql AS 'SELECT $1.id'")
    assert uninstall(installer)
    assert dump(app.urls.admin) == before


def test_uninstall_sees_what_is_being_built_on_it(app: App, installer: str) -> None:
    """A view that another transaction makes at the same moment is waited for, and then stays."""
    migrate(installer)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            uninstall(installer)
        except DatabaseRefused as error:
            errors.append(error)

    with closing(psycopg2.connect(app.urls.admin)) as session, session.cursor() as cursor:
        cursor.execute("CREATE VIEW figures AS SELECT state FROM bridge.turns")
        runner = threading.Thread(target=run)
        runner.start()
        eventually(lambda: app.value("SELECT count(*) FROM pg_locks WHERE NOT granted") >= 1)
        session.commit()
        runner.join(20)
    assert ["view figures" in str(error) for error in errors] == [True]
    assert app.rows("SELECT FROM figures") == []
    assert migrate(installer).triggers == [*TRIGGERS]


def test_only_the_owner_takes_the_bridge_out(app: App) -> None:
    """Neither the run-time role nor one that made half of it: whose it is stands in the line, and it stays whole."""
    app.rows(f"CREATE SCHEMA bridge; GRANT CREATE, USAGE ON SCHEMA bridge TO {OWNER}")
    migrate(app.urls.owner, runtime_role=SERVICE)
    before = dump(app.urls.admin)
    for url, whose in ((app.urls.owner, ADMIN), (app.urls.service, f"{OWNER}, {ADMIN}")):
        with pytest.raises(DatabaseRefused, match=f"belongs to {whose}: "):
            uninstall(url)
        assert dump(app.urls.admin) == before
    app.rows(f"ALTER SCHEMA bridge OWNER TO {OWNER}")
    assert uninstall(app.urls.owner)


def test_running_processes_outlive_an_uninstall(app: App, installer: str) -> None:
    """They are told that the schema is missing, and work again on the same connections when it is back."""
    migrate(installer, runtime_role=SERVICE)
    with store_on(app.urls) as store:
        match = app.match()
        for _ in range(2):
            app.write(match, "salut")
            assert len(store.group()) >= 1
            store.next_due()
            uninstall(installer)
            app.write(match, "sans le pont")
            with pytest.raises(SchemaMissing):
                store.group()
            with pytest.raises(SchemaMissing):
                store.claim(1, uuid4())
            migrate(installer, runtime_role=SERVICE)


# Under load


class Writers:
    """Several of the app's connections that never stop writing, each in its own manner; none may ever fail."""

    def __init__(self, app: App, stack: ExitStack) -> None:
        self.written: list[str] = []
        self.slowest = 0.0
        self.errors: list[BaseException] = []
        self._stopping = threading.Event()
        self._match = app.match()
        self._threads = []
        manners = (self._plain, self._match_first, self._message_first, self._looks_first, self._pauses)
        for manner in (*manners, *manners):
            connection = stack.enter_context(closing(psycopg2.connect(app.urls.app)))
            self._threads.append(threading.Thread(target=self._run, args=(manner, connection)))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(20)

    def _run(self, manner: Callable[[Callable[..., None]], str], connection: psycopg2.extensions.connection) -> None:
        try:
            while not self._stopping.is_set():
                began = time.monotonic()
                with connection, connection.cursor() as cursor:
                    message = manner(cursor.execute)
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.written.append(message)
        except psycopg2.Error as error:
            self.errors.append(error)

    def _write(self, execute: Callable[..., None], match: str) -> str:
        message = str(uuid4())
        execute(
            "INSERT INTO messages (id, match_id, sender_id, content) VALUES (%s, %s, %s, 'salut')",
            (message, match, LEA),
        )
        return message

    def _new_match(self, execute: Callable[..., None]) -> str:
        match = str(uuid4())
        execute("INSERT INTO matches (id, user1_id, user2_id) VALUES (%s, %s, %s)", (match, LEA, CAMILLE))
        return match

    def _plain(self, execute: Callable[..., None]) -> str:
        return self._write(execute, self._match)

    def _match_first(self, execute: Callable[..., None]) -> str:
        return self._write(execute, self._new_match(execute))

    def _message_first(self, execute: Callable[..., None]) -> str:
        message = self._write(execute, self._match)
        execute("UPDATE matches SET created_at = created_at WHERE id = %s", (self._new_match(execute),))
        return message

    def _looks_first(self, execute: Callable[..., None]) -> str:
        execute("SELECT count(*) FROM matches WHERE id = %s", (self._match,))
        return self._write(execute, self._match)

    def _pauses(self, execute: Callable[..., None]) -> str:
        match = self._new_match(execute)
        execute("SELECT pg_sleep(0.02)")
        return self._write(execute, match)


def test_no_insert_of_the_app_fails_while_the_bridge_comes_and_goes(app: App, installer: str) -> None:
    """Under writers in every order of tables it is put in and taken out, and what is written afterwards is captured.

    No transaction of theirs takes as long as the three seconds that an app may be expected to bear.
    """
    with ExitStack() as stack:
        writers = Writers(app, stack)
        with writers:
            for _ in range(3):
                eventually(lambda: len(writers.written) > 20 or bool(writers.errors))
                migrate(installer)
                eventually(lambda: bool(app.value("SELECT count(*) > 20 FROM bridge.events")) or bool(writers.errors))
                uninstall(installer)
            migrate(installer)
            done = len(writers.written) + len(writers._threads)  # what was under way may be older
            eventually(lambda: len(writers.written) > done + 50 or bool(writers.errors))
        assert writers.errors == []
        assert writers.slowest < 3.0
    later = writers.written[done:]
    unknown = app.value(
        "SELECT count(*) FROM unnest(%s::uuid[]) AS m (id)"
        " WHERE NOT EXISTS (SELECT FROM bridge.events e WHERE e.message_id = m.id)",
        later,
    )
    assert (unknown, len(later) > 50) == (0, True)


@pytest.mark.parametrize("run", [migrate, uninstall])
def test_it_yields_before_postgresql_would_end_the_app_s_transaction(
    app: App, installer: str, run: Callable[[str], object]
) -> None:
    """Two transactions wait for each other: it is never the app's that is ended, and the work is done in the end."""
    if run is uninstall:
        migrate(installer)
    with closing(psycopg2.connect(app.urls.app)) as session, closing(App(app.urls)) as watch:
        with session.cursor() as cursor:
            cursor.execute("INSERT INTO matches (user1_id, user2_id) VALUES (%s, %s) RETURNING id", (LEA, CAMILLE))
            row = cursor.fetchone()
            assert row is not None
            runner = threading.Thread(target=run, args=(installer,))
            runner.start()
            eventually(lambda: watch.value("SELECT count(*) FROM pg_locks WHERE NOT granted") >= 1)
            # The longest time that PostgreSQL lets pass before it looks for deadlocks is a second.
            cursor.execute(
                "INSERT INTO messages (match_id, sender_id, content) SELECT %s, %s, 'salut' FROM pg_sleep(0.5)",
                (row[0], LEA),
            )
        session.commit()
        runner.join(20)
    assert not runner.is_alive()
    assert app.value("SELECT count(*) FROM messages") == 1


def test_a_run_that_waits_lets_the_app_write(app: App) -> None:
    """Behind its waiting lock every INSERT queues: so it gives up soon, lets them pass and tries again."""
    with closing(psycopg2.connect(app.urls.app)) as holder:
        match = app.match()
        with holder.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_class")
            cursor.execute("LOCK TABLE messages IN ROW EXCLUSIVE MODE")
        runner = threading.Thread(target=migrate, args=(app.urls.owner,))
        runner.start()
        pids = "SELECT pid FROM pg_stat_activity WHERE application_name = 'bridge migrate' AND wait_event_type = 'Lock'"
        eventually(lambda: bool(app.rows(pids)))
        began = time.monotonic()
        app.write(match, "pendant")
        assert time.monotonic() - began < 10
        assert runner.is_alive()
        holder.rollback()
        runner.join(20)
    assert app.value("SELECT bridge.triggers_installed()")


def test_a_table_that_stays_locked_is_given_up_in_the_end(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends with an error to try again on, and nothing is laid."""
    monkeypatch.setattr(waiting, "ATTEMPTS", 2)
    with closing(psycopg2.connect(app.urls.app)) as holder:
        with holder.cursor() as cursor:
            cursor.execute("LOCK TABLE messages IN ROW EXCLUSIVE MODE")
        with pytest.raises(DatabaseBusy):
            migrate(app.urls.owner)
    assert app.value("SELECT to_regnamespace('bridge')") is None


def test_a_second_run_waits_for_the_first(app: App) -> None:
    """However long that takes: they never work side by side."""
    with closing(psycopg2.connect(app.urls.app)) as first:
        with first.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_KEY,))
        runner = threading.Thread(target=migrate, args=(app.urls.owner,))
        runner.start()
        waiting = "SELECT pid FROM pg_stat_activity WHERE application_name = 'bridge migrate'"
        eventually(lambda: bool(app.rows(waiting)))
        wait_for_lock_wait(app.connection, app.value(waiting))
        assert app.value("SELECT to_regnamespace('bridge')") is None
        first.rollback()
        runner.join(20)
    assert app.value("SELECT bridge.triggers_installed()")


def test_the_demo_s_tables_are_the_ones_that_are_expected() -> None:
    """What the other tests migrate is the contract's app."""
    text = (DEMO_FOLDER / "app.sql").read_text(encoding="utf-8")
    assert all(f"CREATE TABLE {table} (" in text for table in APP_TABLES)


def _name(app: App) -> str:
    return str(app.value("SELECT quote_ident(current_database())"))
