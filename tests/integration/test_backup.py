"""The app's nightly pg_dump works with the bridge as it did before, and the readers still see no draft."""

from __future__ import annotations

import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import psycopg2
import pytest

from bridge_service.demo.binaries import postgresql_binaries
from bridge_service.install.files import steps
from bridge_service.install.migrations import newest_migration
from bridge_service.install.plan import migrate, plan
from tests.support.app import App, Client
from tests.support.databases import copy_of, make_template
from tests.support.policy import set_grouping
from tests.support.roles import APP, OWNER, SERVICE, role_of
from tests.support.store import store_on

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bridge_service.demo.servers import PostgresServer
    from tests.support.roles import Urls

DRAFT: Final = "un secret pas encore dit"
HIDDEN: Final = {
    ("calls", "token"),
    *(("distress", column) for column in ("match_id", "bot_id", "first_at", "last_at", "event_id", "token")),
    ("parts", "content"),
    ("turns", "distress"),
    ("turns", "draft"),
    ("turns", "refused"),
    ("turns", "said"),
    ("turns", "withheld"),
    ("turns", "token"),
}


@pytest.fixture
def app(bridge_database: Urls) -> Iterator[App]:
    """Give the app, on a database with the bridge, whose owner is another role than the app's."""
    with closing(App(bridge_database)) as app:
        yield app


def dumped(url: str, *options: str) -> str:
    """Return what pg_dump of this server's version says of a database; fail if it fails."""
    done = subprocess.run(
        [postgresql_binaries() / "pg_dump", *options, url], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return "\n".join(line for line in done.stdout.splitlines() if not line.startswith(("\\restrict", "\\unrestrict")))


def hold_a_draft(app: App) -> None:
    """Let a bot be about to say DRAFT."""
    app.write(app.match(), "salut")
    set_grouping(app.urls, 0, probability=0)
    with store_on(app.urls) as store:
        store.group()
        [push] = store.push_due(10)
        token = uuid4()
        store.claim(push.turn_id, token)
        store.finish(push.turn_id, token, DRAFT, pause=60.0)


def hidden_from(app: App, role: str) -> set[tuple[str, str]]:
    """Return the tables and columns of the bridge, those of laid_functions excepted, that a role may not read."""
    return set(
        app.rows(
            "SELECT c.relname::text, a.attname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
            " WHERE c.relnamespace = 'bridge'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped"
            " AND c.relname <> 'laid_functions' AND NOT has_column_privilege(%s, c.oid, a.attnum, 'SELECT')",
            role,
        )
    )


def as_before(app: App) -> None:
    """Put the row-level security of the release before migration 0006 back, with its one policy for the reader."""
    app.rows("ALTER TABLE bridge.installation DROP profiles, DROP matches, DROP messages, DROP laid_for")
    app.rows("DELETE FROM bridge.migrations WHERE number = 6")
    app.rows(f"REVOKE ALL ON ALL TABLES IN SCHEMA bridge FROM {APP}; REVOKE ALL ON SCHEMA bridge FROM {APP}")
    app.rows(f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA bridge FROM {APP}")
    for table in ("events", "turns", "installation", "migrations", "processes", "incidents", "laid_functions"):
        app.rows(f"ALTER TABLE bridge.{table} ENABLE ROW LEVEL SECURITY")
        if table != "laid_functions":
            app.rows(f"CREATE POLICY bridge_reader ON bridge.{table} FOR SELECT TO bridge_reader USING (true)")


def test_the_backup_works_as_it_did_before(app: App) -> None:
    """As the owner of the app's tables and as a member of pg_read_all_data, all of it, like the superuser's."""
    hold_a_draft(app)
    whole = dumped(app.urls.admin)
    assert DRAFT in whole
    with role_of(app, "pg_read_all_data") as backup, role_of(app, APP) as member:
        for role in (APP, backup, member):
            assert dumped(app.urls.of(role)) == whole
            assert dumped(app.urls.of(role), "--data-only", "--table=bridge.*")


def test_the_backup_reads_what_an_upgrade_brings(app: App, sql_folder: Path) -> None:
    """Tables and sequences of later migrations too, also after an operator revoked it."""
    assert migrate(app.urls.owner).migrations == []
    text = "CREATE TABLE bridge.mood (id bigint GENERATED ALWAYS AS IDENTITY, mood text)"
    (sql_folder / "migrations" / f"{newest_migration() + 1:04}_mood.sql").write_text(text, encoding="utf-8")
    migrate(app.urls.owner)
    assert "COPY bridge.mood" in dumped(app.urls.app)
    app.rows(f"REVOKE SELECT ON SEQUENCE bridge.mood_id_seq FROM {APP}")  # noqa: S608
    migrate(app.urls.owner)
    assert dumped(app.urls.app) == dumped(app.urls.admin)
    assert plan(app.urls.owner)[1] == ""


def test_the_backup_s_role_may_only_read(app: App) -> None:
    """The owner of the app's tables may call no step and change no row of the bridge's."""
    steps_of_app = "SELECT count(*) FROM pg_proc p WHERE p.pronamespace = 'bridge'::regnamespace AND proname = ANY (%s)"
    assert app.value(f"{steps_of_app} AND has_function_privilege(%s, p.oid, 'EXECUTE')", steps(), APP) == 0
    for statement in (
        "DELETE FROM bridge.events",
        "UPDATE bridge.turns SET due_at = NULL",
        "SELECT bridge.next_turn(NULL)",
    ):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            app.people.rows(statement)
    assert app.people.value("SELECT count(*) FROM bridge.turns") == 0


def test_another_role_s_backup_sees_nothing(app: App) -> None:
    """A role that was granted the app's tables alone reads no row of the bridge's, and dumps the app without it."""
    hold_a_draft(app)
    rights = ("SELECT ON ALL TABLES IN SCHEMA public", "SELECT ON ALL SEQUENCES IN SCHEMA public")
    with role_of(app, *rights) as backup, closing(Client(app.urls.of(backup))) as client:
        for table in ("events", "turns", "installation", "laid_functions"):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                client.rows(f"SELECT FROM bridge.{table}")
        with pytest.raises(AssertionError, match="permission denied"):
            dumped(app.urls.of(backup))
        assert DRAFT not in dumped(app.urls.of(backup), "--exclude-schema=bridge")


def test_an_upgrade_takes_the_second_wall_away_and_opens_nothing_else(app: App) -> None:
    """Row-level security goes; a role that was granted a table and saw no row of it sees none now either."""
    hold_a_draft(app)
    as_before(app)
    with (
        role_of(app) as granted,
        role_of(app, "bridge_reader") as member,
        role_of(app, "pg_read_all_data") as backup,
        role_of(app) as bypass,
    ):
        app.rows(f"ALTER ROLE {bypass} BYPASSRLS")
        for role in (granted, member, bypass):
            app.rows(f"GRANT USAGE ON SCHEMA bridge TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA bridge TO {role}")
        app.rows(f"GRANT SELECT (draft) ON bridge.turns TO {granted}; GRANT SELECT ON bridge.events TO PUBLIC")
        with pytest.raises(AssertionError, match="row-level security"):
            dumped(app.urls.of(backup))
        with pytest.raises(AssertionError, match="permission denied"):
            dumped(app.urls.app)

        migrate(app.urls.owner)
        assert app.rows("SELECT FROM pg_class WHERE relnamespace = 'bridge'::regnamespace AND relrowsecurity") == []
        assert app.rows("SELECT FROM pg_policy") == []
        whole = dumped(app.urls.admin)
        assert dumped(app.urls.of(backup)) == dumped(app.urls.app) == whole
        assert ("events", "id") in hidden_from(app, granted)
        assert ("turns", "draft") in hidden_from(app, granted)
        assert hidden_from(app, "bridge_reader") == HIDDEN
        assert ("events", "id") not in hidden_from(app, member)
        assert hidden_from(app, bypass) == set()
        assert ("events", "id") in hidden_from(app, SERVICE)


def test_no_table_of_the_bridge_has_row_level_security(app: App) -> None:
    """Any policy on any of them would make pg_dump fail for every role that is not the owner."""
    assert app.rows("SELECT FROM pg_class WHERE relnamespace = 'bridge'::regnamespace AND relrowsecurity") == []


def test_generous_defaults_show_neither_drafts_nor_rows(postgres: PostgresServer, sql_folder: Path) -> None:
    """Where new tables are granted to roles by default, those that may enter the schema still read what they should."""
    urls = make_template(postgres, f"generous_{uuid4().hex}")
    with (
        copy_of(postgres, urls.name) as copied,
        closing(App(copied)) as app,
        role_of(app) as reader,
        role_of(app) as meant,
    ):
        defaults = f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER}"
        for grantee in (SERVICE, reader, "PUBLIC"):
            app.rows(f"{defaults} GRANT ALL ON TABLES TO {grantee}; {defaults} GRANT ALL ON SEQUENCES TO {grantee}")

        def judge() -> None:
            assert hidden_from(app, reader) == HIDDEN
            assert ("events", "id") in hidden_from(app, SERVICE)
            assert app.rows(
                "SELECT c.relname FROM pg_class c CROSS JOIN unnest(ARRAY['bridge', %s]) AS r (role)"
                " WHERE c.relkind = 'S' AND c.relnamespace = 'bridge'::regnamespace"
                " AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(r.role, c.oid, 'USAGE') END",
                reader,
            ) == []  # fmt: skip

        migrate(copied.owner, runtime_role=SERVICE, reader_roles=[reader])
        judge()
        app.rows(f"{defaults} IN SCHEMA bridge GRANT SELECT ON TABLES TO {meant}")
        text = "CREATE TABLE bridge.mood (id bigint GENERATED ALWAYS AS IDENTITY)"
        (sql_folder / "migrations" / f"{newest_migration() + 1:04}_mood.sql").write_text(text, encoding="utf-8")
        migrate(copied.owner)
        mood = "SELECT has_table_privilege(%s, 'bridge.mood', 'SELECT')"
        assert [app.value(mood, role) for role in (reader, SERVICE, meant)] == [False, False, True]
        for grantee in (SERVICE, "PUBLIC"):
            app.rows(
                f"{defaults} REVOKE ALL ON TABLES FROM {grantee}; {defaults} REVOKE ALL ON SEQUENCES FROM {grantee}"
            )
