"""A bridge that comes out of a backup without its rows, its functions or its triggers: `migrate` finishes it."""

from __future__ import annotations

import json
import subprocess
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest
from typer.testing import CliRunner

from bridge_service.errors import SchemaMissing
from bridge_service.install.files import digests, sql_files
from bridge_service.install.migrations import found_by
from bridge_service.install.plan import migrate, plan
from bridge_service.install.uninstall import uninstall
from bridge_service.machine.database import Connection, Database
from bridge_service.machine.ledger import Ledger
from bridge_service.operate.cli import app as command_line
from bridge_service.process.startup import wait_for_postgres
from bridge_service.telemetry.signals import SchemaAbsent
from tests.integration.test_migrate import answer, client, psql
from tests.support.app import App
from tests.support.databases import DEMO_FOLDER, IN_PUBLIC, copy_of, execute
from tests.support.recorder import Recorder
from tests.support.roles import ADMIN, OWNER, SERVICE, assert_not
from tests.support.store import store_on
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.demo.servers import PostgresServer, RedisServer
    from tests.support.roles import Urls

FILES: Final = sql_files("migrations")
PEOPLE: Final = (DEMO_FOLDER / "people.sql").read_text(encoding="utf-8")
COMMANDS: Final = (
    ["check"],
    ["verify"],
    ["replay"],
    ["report"],
    ["why", "a0000000-0000-4000-8000-000000000001"],
    ["dead", "list"],
    ["dead", "show", "1"],
    ["dead", "retry", "--all"],
    ["dead", "drop", "1"],
    ["validate"],
)
DROP_FUNCTIONS: Final = """
    DO $$ DECLARE f text; BEGIN
        FOR f IN SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'bridge'::regnamespace LOOP
            EXECUTE 'DROP FUNCTION ' || f || ' CASCADE';
        END LOOP;
    END $$
"""
WITH_JSON: Final = ("check", "verify", "report", "why", "list", "show", "validate")


@pytest.fixture
def restored(postgres: PostgresServer, bridge_database: Urls) -> Iterator[App]:
    """Give the app on a database restored from a dump of the schema alone, its people put in again."""
    with copy_of(postgres, "template1") as urls, closing(App(urls)) as app:
        app.rows(f"GRANT CREATE ON DATABASE {urls.name} TO {OWNER}")
        restore(bridge_database, urls, "--schema-only")
        app.rows(PEOPLE)
        yield app


def restore(source: Urls, target: Urls, *options: str) -> None:
    """Dump one database as an operator would, and restore it into another one."""
    dumped = subprocess.run([client("pg_dump"), *options, source.admin], capture_output=True, text=True, check=True)
    assert psql(target.admin, dumped.stdout.replace("CREATE SCHEMA public;", "")) == ""


def serves(app: App) -> None:
    """Fail unless a message is captured, answered, and accounted for."""
    with store_on(app.urls) as store:
        match = app.match()
        answer(app, store, match, "coucou")
        assert app.said(match) == ["coucou"]
    accounts = app.value("SELECT bridge.verify(30, 10)")
    assert (accounts["messages"], accounts["answered"], accounts["unaccounted"]) == (1, 1, 0)


def test_a_schema_restored_without_rows_is_finished(restored: App) -> None:
    """The migrations are found, the functions laid anew, and the installation begins with this run."""
    before = restored.value("SELECT clock_timestamp()")
    report = migrate(restored.urls.owner)
    assert (report.migrations, report.found) == ([], [file.name for file in FILES])
    assert sorted(report.functions) == sorted(digests(IN_PUBLIC))
    assert (report.kept, report.triggers) == ([], [])
    assert restored.value("SELECT installed_at FROM bridge.installation") > before
    again = migrate(restored.urls.owner)
    assert (again.found, again.migrations, again.functions, again.triggers) == ([], [], [], [])
    serves(restored)


def test_the_plan_for_a_restored_schema_finishes_it(restored: App) -> None:
    """By psql, as well as by `migrate`."""
    report, script = plan(restored.urls.owner)
    assert report.found == [file.name for file in FILES]
    assert psql(restored.urls.owner, script) == ""
    assert plan(restored.urls.owner)[1] == ""
    serves(restored)


def test_what_the_app_replaced_before_the_dump_is_left_alone(postgres: PostgresServer, bridge_database: Urls) -> None:
    """No row tells of it any more, but the function does not fit its mark, or has none and no release laid it.

    Functions of a release that set no marks are known by their bodies.
    """
    by_app = (
        "CREATE OR REPLACE FUNCTION bridge.history(p_match uuid, p_covered uuid[], p_lines integer)"
        " RETURNS TABLE (message_id uuid, sender_id uuid, content text, created_at timestamptz, covered boolean)"
        " LANGUAGE sql STABLE AS 'SELECT NULL::uuid, NULL::uuid, NULL::text, NULL::timestamptz, true WHERE false'"
    )
    unmarked = "COMMENT ON FUNCTION bridge.deliver IS NULL; COMMENT ON FUNCTION bridge.conversation IS NULL"
    no_answer = (
        "CREATE OR REPLACE FUNCTION bridge.deliver(p_turn bigint, p_message uuid, p_match uuid, p_bot uuid,"
        " p_content text, p_created_at timestamptz) RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'"
    )
    execute(bridge_database.admin, by_app, unmarked, no_answer)
    with copy_of(postgres, "template1") as urls, closing(App(urls)) as app:
        app.rows(f"GRANT CREATE ON DATABASE {urls.name} TO {OWNER}")
        restore(bridge_database, urls, "--schema-only")
        for _ in range(2):
            assert sorted(migrate(urls.owner).kept) == ["deliver", "history"]
        assert sorted(app.value("SELECT bridge.installed()")["changed"]) == ["deliver", "history"]
        app.rows("DROP FUNCTION bridge.deliver")
        report = migrate(urls.owner)
        assert (report.kept, report.functions) == (["history"], ["deliver"])


def test_a_restore_without_privileges_opens_no_function(postgres: PostgresServer, bridge_database: Urls) -> None:
    """PUBLIC may call none of them after `migrate`, with the rows in the dump or without."""
    for options in (["-x"], ["-x", "--schema-only"]):
        with copy_of(postgres, "template1") as urls, closing(App(urls)) as app:
            app.rows(f"GRANT CREATE ON DATABASE {urls.name} TO {OWNER}")
            restore(bridge_database, urls, *options)
            app.rows(f"GRANT SELECT, INSERT, TRIGGER ON profiles, matches, messages TO {OWNER}")
            if "--schema-only" in options:
                app.rows(PEOPLE)
            migrate(urls.owner, runtime_role=SERVICE)
            open_ones = (
                "SELECT count(*) FROM pg_proc p WHERE p.pronamespace = 'bridge'::regnamespace"
                " AND has_function_privilege('bridge_reader', p.oid, 'EXECUTE')"
            )
            assert app.value(open_ones) == 0
            assert plan(urls.owner)[1] == ""
            serves(app)


def test_a_restored_schema_can_be_taken_out(restored: App) -> None:
    """Without a `migrate` before it, which the other commands ask for."""
    with closing(Connection(restored.urls.service, application="test")) as connection, pytest.raises(SchemaMissing):
        Ledger(connection).assert_complete()
    assert uninstall(restored.urls.owner)
    assert restored.value("SELECT to_regnamespace('bridge')") is None
    match = restored.match()
    restored.write(match, "salut")


@pytest.mark.parametrize("number", range(1, len(FILES) + 1))
def test_the_migrations_of_every_earlier_schema_are_found(app_database: Urls, number: int) -> None:
    """Each file begins with an expression that is true from its own migration on: the rest is applied, and no more."""
    assert all(found_by(file) for file in FILES)
    with closing(App(app_database)) as app:
        app.rows(f"CREATE SCHEMA bridge AUTHORIZATION {OWNER}; SET ROLE {OWNER}")
        app.rows(
            "CREATE TABLE bridge.migrations (number integer PRIMARY KEY, name text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        for file in FILES[:number]:
            app.rows(file.read_text(encoding="utf-8"))
        app.rows("TRUNCATE bridge.installation; RESET ROLE")
        report = migrate(app.urls.owner, runtime_role=SERVICE)
        names = [file.name for file in FILES]
        assert (report.found, report.migrations) == (names[:number], names[number:])
        serves(app)


@pytest.mark.parametrize(
    "lost",
    [
        "DELETE FROM bridge.installation",
        "DELETE FROM bridge.migrations",
        "DELETE FROM bridge.laid_functions",
        "DROP TABLE bridge.migrations",
        DROP_FUNCTIONS,
        "DROP TRIGGER bridge_after_message ON messages; DROP TRIGGER bridge_after_match ON matches",
    ],
    ids=["installation", "migrations", "laid_functions", "table", "functions", "triggers"],
)
def test_what_a_restore_lost_comes_back(bridge_database: Urls, lost: str) -> None:
    """Rows of one table, a table, every function with the triggers, or triggers: after `migrate` the bridge serves."""
    with closing(App(bridge_database)) as app:
        app.rows(lost)
        report = migrate(app.urls.owner, runtime_role=SERVICE)
        assert (report.migrations, report.kept) == ([], [])
        assert app.value("SELECT bridge.triggers_installed() AND bridge.assert_complete()")
        serves(app)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("table", ["installation", "migrations", "laid_functions"])
def test_every_command_sends_a_half_installation_to_migrate(
    bridge_database: Urls, redis_server: RedisServer, table: str, words: list[str]
) -> None:
    """In one line that names the empty table, with exit code 1; one JSON object where JSON is asked for."""
    execute(bridge_database.admin, f"TRUNCATE bridge.{table}")
    url = bridge_database.of("bridge_validator") if words == ["validate"] else bridge_database.service
    assert_not(url, ADMIN)
    environment = {"DATABASE_URL": url, "REDIS_URL": redis_server.url()}
    as_json = words[-1] in WITH_JSON or words[0] in WITH_JSON
    for options in ([], ["--json"]) if as_json and words[0] != "validate" else ([],):
        result = CliRunner().invoke(command_line, [*words, *options], env=environment)
        assert result.exit_code == 1, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert "python -m bridge_service migrate" in result.output
        assert f"no row in bridge.{table}" in result.output
        if options:
            json.loads(result.stdout)


@pytest.mark.parametrize("table", ["installation", "migrations", "laid_functions"])
def test_status_says_of_a_half_installation_that_the_schema_is_not_there(
    bridge_database: Urls, redis_server: RedisServer, table: str
) -> None:
    """With exit code 0, for it could report."""
    execute(bridge_database.admin, f"TRUNCATE bridge.{table}")
    environment = {"DATABASE_URL": bridge_database.service, "REDIS_URL": redis_server.url()}
    result = CliRunner().invoke(command_line, ["status", "--json"], env=environment)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["postgresql"] == "no schema"


def test_a_process_waits_for_the_rest_of_a_half_installation(bridge_database: Urls) -> None:
    """It says what it says of a missing schema, and goes on by itself when `migrate` is done."""
    execute(bridge_database.admin, "DELETE FROM bridge.installation")
    recorder, stopping = Recorder(), threading.Event()
    with closing(Database(lambda: Connection(bridge_database.service, application="test"))) as database:
        found: list[bool] = []
        process = threading.Thread(target=lambda: found.append(wait_for_postgres(database, recorder, stopping)))
        process.start()
        try:
            eventually(lambda: bool(recorder.of(SchemaAbsent)))
            migrate(bridge_database.owner)
        finally:
            process.join(10)
            stopping.set()
            process.join(10)
    assert found == [True]
