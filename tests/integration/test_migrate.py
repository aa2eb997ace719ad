from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Final, Self
from uuid import uuid4

import psycopg2
import pytest

from bridge_service import migrate as module
from bridge_service.demo import servers
from bridge_service.errors import BridgeError, DatabaseBusy, DatabaseRefused, SchemaMissing
from bridge_service.migrate import TRIGGERS, digests, migrate, newest_migration, steps, uninstall
from bridge_service.store import GroupingRules
from tests.conftest import DEMO_FOLDER
from tests.support.app import CAMILLE, LEA, App
from tests.support.databases import execute
from tests.support.store import store_on
from tests.support.waiting import eventually, wait_for_lock_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SEVERAL_SCHEMAS: Final = (
    "CREATE SCHEMA other; CREATE TABLE other.messages (LIKE messages); DROP TABLE messages;"
    " ALTER DATABASE {name} SET search_path = public, other"
)
RULES: Final = GroupingRules(15.0, 60.0, 60.0, 1.0)


@pytest.fixture
def app(app_database: str) -> Iterator[App]:
    """Give the app, on a database without the bridge."""
    with closing(App(app_database)) as app:
        yield app


@pytest.fixture
def sql_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a copy of sql/ that a test may change, and that `migrate` lays from."""
    folder = tmp_path / "sql"
    shutil.copytree(module.SQL_FOLDER, folder)
    monkeypatch.setattr(module, "SQL_FOLDER", folder)
    return folder


@contextmanager
def role_of(app: App, *grants: str) -> Iterator[str]:
    """Give a role with these rights, and take it away afterwards."""
    role = f"role_{uuid4().hex}"
    app.rows(f"CREATE ROLE {role} LOGIN")
    try:
        for grant in grants:
            app.rows(f"GRANT {grant} TO {role}")
        yield role
    finally:
        app.rows(f"DROP OWNED BY {role}")
        app.rows(f"DROP ROLE {role}")


def change(file: Path, old: str, new: str) -> None:
    """Replace a text in a file."""
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def dump(url: str) -> str:
    """Return all that pg_dump says of a database."""
    binary = servers._postgresql_binaries() / "pg_dump"
    if not binary.exists():
        pytest.skip("there is no pg_dump beside this PostgreSQL")
    lines = subprocess.run([binary, url], capture_output=True, text=True, check=True).stdout.splitlines()
    return "\n".join(line for line in lines if not line.startswith(("\\restrict", "\\unrestrict")))


def functions(app: App) -> dict[str, int]:
    """How many functions of each name there are in schema `bridge`."""
    return dict(
        app.rows("SELECT proname::text, count(*) FROM pg_proc WHERE pronamespace = 'bridge'::regnamespace GROUP BY 1")
    )


# Laying


def test_the_first_run_lays_everything_and_the_second_nothing(app: App) -> None:
    """Twice is harmless, and the report says what was done."""
    first = migrate(app.url)
    assert len(first.migrations) == newest_migration()
    assert sorted(first.functions) == sorted(digests("public"))
    assert set(first.triggers) == set(TRIGGERS)
    before = dump(app.url)
    second = migrate(app.url)
    assert (second.migrations, second.functions, second.triggers, second.kept) == ([], [], [], [])
    assert dump(app.url) == before
    assert set(steps()) <= set(functions(app)) == set(digests("public"))
    assert set(functions(app).values()) == {1}


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
def test_five_processes_at_once_lay_it_once(app: App, isolation: str) -> None:
    """Whatever isolation the database has by default, one of them does it, and the others find it done."""
    app.rows(f"ALTER DATABASE {_name(app)} SET default_transaction_isolation = '{isolation}'")
    script = "import sys; from bridge_service.migrate import migrate; print(len(migrate(sys.argv[1]).functions))"
    crew = [
        subprocess.Popen(
            [sys.executable, "-c", script, app.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(5)
    ]
    said = [process.communicate(timeout=60) for process in crew]
    assert [process.returncode for process in crew] == [0] * 5, said
    assert sorted(int(out) for out, _ in said) == [0, 0, 0, 0, len(digests("public"))]
    assert set(functions(app).values()) == {1}


def test_a_run_that_fails_leaves_nothing(app: App, sql_folder: Path) -> None:
    """All of it is one transaction: a mistake in the last file leaves the database as it was."""
    before = dump(app.url)
    (sql_folder / "functions" / "zzz.sql").write_text(
        "CREATE OR REPLACE FUNCTION bridge.zzz() RETURNS nonsense", "utf-8"
    )
    with pytest.raises(BridgeError):
        migrate(app.url)
    assert dump(app.url) == before


def test_a_new_migration_runs_once(app: App, sql_folder: Path) -> None:
    """The numbers above the last one, in order, each a single time."""
    migrate(app.url)
    number = newest_migration()
    for step, text in ((1, "CREATE TABLE bridge.note (id int)"), (2, "INSERT INTO bridge.note VALUES (7)")):
        (sql_folder / "migrations" / f"{number + step:04}_note.sql").write_text(text, encoding="utf-8")
    assert migrate(app.url).migrations == [f"{number + 1:04}_note.sql", f"{number + 2:04}_note.sql"]
    assert migrate(app.url).migrations == []
    assert app.rows("SELECT id FROM bridge.note") == [(7,)]
    assert newest_migration() == number + 2


def test_an_older_code_leaves_a_newer_migration_alone(app: App) -> None:
    """A database that was migrated by newer code is not taken back."""
    migrate(app.url)
    app.rows("INSERT INTO bridge.migrations (number, name) VALUES (9000, '9000_future.sql')")
    assert migrate(app.url).migrations == []


def test_a_function_whose_file_changed_is_laid_anew(app: App, sql_folder: Path) -> None:
    """That one only, and it does what the new file says."""
    migrate(app.url)
    change(sql_folder / "functions" / "triggers_installed.sql", "count(*) >= 3", "false AND count(*) >= 3")
    assert migrate(app.url).functions == ["triggers_installed"]
    assert app.value("SELECT bridge.triggers_installed()") is False
    assert migrate(app.url).functions == []


def test_a_function_that_was_changed_by_hand_is_laid_as_it_was(app: App) -> None:
    """So is one that somebody dropped: a half-mended database does not survive the next deployment."""
    migrate(app.url)
    app.rows("CREATE OR REPLACE FUNCTION bridge.triggers_installed() RETURNS boolean LANGUAGE sql AS 'SELECT false'")
    app.rows("DROP FUNCTION bridge.next_due")
    assert sorted(migrate(app.url).functions) == ["next_due", "triggers_installed"]
    assert app.value("SELECT bridge.triggers_installed()") is True


def test_an_adapter_function_that_the_app_replaced_is_left_alone(app: App, sql_folder: Path) -> None:
    """Even when our file changes, and every run says so."""
    migrate(app.url)
    app.rows(
        "CREATE OR REPLACE FUNCTION bridge.deliver(p_turn bigint, p_message uuid, p_match uuid, p_bot uuid,"
        " p_content text, p_created_at timestamptz) RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'"
    )
    for _ in range(2):
        report = migrate(app.url)
        assert (report.kept, report.functions) == (["deliver"], [])
    change(sql_folder / "functions" / "app" / "deliver.sql", "-- Inserts one", "-- Now inserts one")
    report = migrate(app.url)
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
    """Never two of one name, and whoever was allowed to call the old one may call the new one."""
    with role_of(app) as role:
        migrate(app.url, runtime_role=role)
        change(sql_folder / "functions" / "triggers_installed.sql", old, new)
        assert migrate(app.url).functions == ["triggers_installed"]
        assert functions(app)["triggers_installed"] == 1
        with closing(App(app.url, user=role)) as runtime:
            assert runtime.rows("SELECT * FROM bridge.triggers_installed()") == [(True,)]


def test_a_new_step_may_be_called_by_whoever_called_the_others(app: App, sql_folder: Path) -> None:
    """An update needs no `--runtime-role` again; and a role that may only look is given nothing."""
    with role_of(app) as role, role_of(app) as reader:
        migrate(app.url, runtime_role=role, reader_role=reader)
        app.rows(f"GRANT EXECUTE ON FUNCTION bridge.triggers_installed() TO {reader}")
        new = "CREATE OR REPLACE FUNCTION bridge.new_step() RETURNS integer LANGUAGE sql AS 'SELECT 7'"
        (sql_folder / "functions" / "new_step.sql").write_text(new, encoding="utf-8")
        migrate(app.url)
        with closing(App(app.url, user=role)) as runtime:
            assert runtime.value("SELECT bridge.new_step()") == 7
        allowed = "SELECT has_function_privilege(%s, 'bridge.new_step()', 'EXECUTE')"
        assert app.value(allowed, reader) is False


def test_a_missing_trigger_is_made_again(app: App) -> None:
    """What somebody dropped comes back with the next run."""
    migrate(app.url)
    app.rows("DROP TRIGGER bridge_after_message ON messages")
    assert migrate(app.url).triggers == ["bridge_after_message"]
    message = app.write(app.match(), "salut")
    assert app.value("SELECT count(*) FROM bridge.events WHERE message_id = %s", message) == 1


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
        ("CREATE SCHEMA bridge; CREATE TABLE bridge.built_in_1779 (id int)", "not the bridge's"),
    ],
    ids=["table", "column", "columns", "schemas", "foreign"],
)
def test_what_is_missing_is_said_in_one_clear_line(app: App, spoil: str, words: str) -> None:
    """And nothing is laid."""
    execute(app.url, spoil.format(name=_name(app)))
    with pytest.raises(DatabaseRefused) as error:
        migrate(app.url)
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
        with pytest.raises(DatabaseRefused) as error:
            migrate(app.url.replace("//postgres@", f"//{role}@"))
        assert words in str(error.value)
        assert "\n" not in str(error.value)
        assert app.value("SELECT to_regnamespace('bridge')") is None


def test_somebody_else_s_schema_is_not_dropped(app: App) -> None:
    """`uninstall` on a database where `bridge` is another program's refuses, and touches nothing."""
    execute(app.url, "CREATE SCHEMA bridge; CREATE TABLE bridge.built_in_1779 (id int)")
    before = dump(app.url)
    with pytest.raises(DatabaseRefused, match="not the bridge's"):
        uninstall(app.url)
    assert dump(app.url) == before


def test_an_empty_schema_that_was_made_for_it_is_used(app: App) -> None:
    """Where only an administrator may make schemas, he makes it beforehand."""
    app.rows("CREATE SCHEMA bridge")
    assert uninstall(app.url)
    app.rows("CREATE SCHEMA bridge")
    migrate(app.url)
    assert app.value("SELECT bridge.triggers_installed()")


def test_the_app_s_schema_may_have_any_name(app: App) -> None:
    """Capitals, blanks, dots and quotes do no harm: a message is captured, answered and delivered."""
    schema = '"My ""app"" v1.2"'
    app.rows(f"CREATE SCHEMA {schema}")
    for table in ("profiles", "matches", "messages"):
        app.rows(f"ALTER TABLE {table} SET SCHEMA {schema}")
    app.rows(f"ALTER DATABASE {_name(app)} SET search_path = {schema}")
    migrate(app.url)
    assert migrate(app.url).functions == []
    with closing(App(app.url)) as inside, store_on(app.url) as store:
        match = inside.match()
        inside.rows("DELETE FROM bridge.events")
        inside.write(match, "salut")
        store.group(GroupingRules(0.0, 60.0, 60.0, 1.0))
        [push] = store.push_due(10)
        token = uuid4()
        store.claim(push.turn_id, token)
        store.finish(push.turn_id, token, "coucou", pause=0.0, max_merges=3, grouping_delay=0.0)
        assert inside.said(match) == ["coucou"]
    assert uninstall(app.url)


# Taking out


def test_uninstall_leaves_the_database_as_it_was(app: App) -> None:
    """pg_dump finds not a letter changed, twice even; and a second time nothing is left to do."""
    app.write(app.match(), "avant")
    before = dump(app.url)
    with role_of(app) as runtime, role_of(app) as reader:
        for _ in range(2):
            migrate(app.url, runtime_role=runtime, reader_role=reader)
            assert uninstall(app.url) is True
            assert dump(app.url) == before
            assert uninstall(app.url) is False
    assert dump(app.url) == before


def test_running_processes_outlive_an_uninstall(app: App) -> None:
    """They are told that the schema is missing, and work again on the same connections when it is back."""
    migrate(app.url)
    with store_on(app.url) as store:
        match = app.match()
        for _ in range(2):
            app.write(match, "salut")
            assert len(store.group(RULES)) >= 1
            store.next_due()
            uninstall(app.url)
            app.write(match, "sans le pont")
            with pytest.raises(SchemaMissing):
                store.group(RULES)
            with pytest.raises(SchemaMissing):
                store.claim(1, uuid4())
            migrate(app.url)


# Under load


class Writers:
    """Several of the app's connections that never stop writing, each in its own manner; none may ever fail."""

    def __init__(self, app: App, stack: ExitStack) -> None:
        self.written: list[str] = []
        self.errors: list[BaseException] = []
        self._stopping = threading.Event()
        self._match = app.match()
        self._threads = []
        manners = (self._plain, self._match_first, self._message_first, self._looks_first, self._pauses)
        for manner in (*manners, *manners):
            connection = stack.enter_context(closing(psycopg2.connect(app.url)))
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
                with connection, connection.cursor() as cursor:
                    message = manner(cursor.execute)
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


def test_no_insert_of_the_app_fails_while_the_bridge_comes_and_goes(app: App) -> None:
    """Under writers in every order of tables it is put in and taken out, and what is written afterwards is captured."""
    with ExitStack() as stack:
        writers = Writers(app, stack)
        with writers:
            for _ in range(3):
                eventually(lambda: len(writers.written) > 20 or bool(writers.errors))
                migrate(app.url)
                eventually(lambda: bool(app.value("SELECT count(*) > 20 FROM bridge.events")) or bool(writers.errors))
                uninstall(app.url)
            migrate(app.url)
            done = len(writers.written) + len(writers._threads)  # what was under way may be older
            eventually(lambda: len(writers.written) > done + 50 or bool(writers.errors))
        assert writers.errors == []
    later = writers.written[done:]
    unknown = app.value(
        "SELECT count(*) FROM unnest(%s::uuid[]) AS m (id)"
        " WHERE NOT EXISTS (SELECT FROM bridge.events e WHERE e.message_id = m.id)",
        later,
    )
    assert (unknown, len(later) > 50) == (0, True)


@pytest.mark.parametrize("run", [migrate, uninstall])
def test_it_yields_before_postgresql_would_end_the_app_s_transaction(app: App, run: Callable[[str], object]) -> None:
    """Two transactions wait for each other: it is never the app's that is ended, and the work is done in the end."""
    if run is uninstall:
        migrate(app.url)
    with closing(psycopg2.connect(app.url)) as session, closing(App(app.url)) as watch:
        with session.cursor() as cursor:
            cursor.execute("INSERT INTO matches (user1_id, user2_id) VALUES (%s, %s) RETURNING id", (LEA, CAMILLE))
            row = cursor.fetchone()
            assert row is not None
            runner = threading.Thread(target=run, args=(app.url,))
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
    with closing(psycopg2.connect(app.url)) as holder:
        match = app.match()
        with holder.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_class")
            cursor.execute("LOCK TABLE messages IN ROW EXCLUSIVE MODE")
        runner = threading.Thread(target=migrate, args=(app.url,))
        runner.start()
        pids = "SELECT pid FROM pg_stat_activity WHERE application_name = 'bridge migrate' AND wait_event_type = 'Lock'"
        eventually(lambda: bool(app.rows(pids)))
        began = time.monotonic()
        app.write(match, "pendant")
        assert time.monotonic() - began < 1.0
        assert runner.is_alive()
        holder.rollback()
        runner.join(20)
    assert app.value("SELECT bridge.triggers_installed()")


def test_a_table_that_stays_locked_is_given_up_in_the_end(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends with an error to try again on, and nothing is laid."""
    monkeypatch.setattr(module, "_ATTEMPTS", 2)
    with closing(psycopg2.connect(app.url)) as holder:
        with holder.cursor() as cursor:
            cursor.execute("LOCK TABLE messages IN ROW EXCLUSIVE MODE")
        with pytest.raises(DatabaseBusy):
            migrate(app.url)
    assert app.value("SELECT to_regnamespace('bridge')") is None


def test_a_second_run_waits_for_the_first(app: App) -> None:
    """However long that takes: they never work side by side."""
    with closing(psycopg2.connect(app.url)) as first:
        with first.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (module._ADVISORY_KEY,))
        runner = threading.Thread(target=migrate, args=(app.url,))
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
    assert all(f"CREATE TABLE {table} (" in text for table in module.APP_TABLES)


def _name(app: App) -> str:
    return str(app.value("SELECT quote_ident(current_database())"))
