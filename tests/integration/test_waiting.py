"""Whom `migrate` and `uninstall` wait for: autovacuum gives way, any other holder of a lock is named."""

from __future__ import annotations

import re
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

import psycopg2
import pytest

from bridge_service.demo.servers import PostgresServer
from bridge_service.errors import DatabaseBusy
from bridge_service.install import waiting
from bridge_service.install.plan import migrate
from bridge_service.install.uninstall import uninstall
from tests.conftest import QUICK
from tests.support.app import App
from tests.support.databases import make_template
from tests.support.roles import APP, OWNER
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.roles import Urls

SLOW_VACUUM: Final = {
    **QUICK,
    "autovacuum_naptime": "1",
    "autovacuum_vacuum_cost_delay": "100",
    "autovacuum_vacuum_cost_limit": "1",
}
AT_WORK: Final = (
    "SELECT p.pid FROM pg_stat_progress_vacuum p JOIN pg_stat_activity a USING (pid)"
    " WHERE a.backend_type = 'autovacuum worker' AND p.relid = 'messages'::regclass"
)


@pytest.fixture
def app(app_database: Urls) -> Iterator[App]:
    """Give the app, on a database without the bridge."""
    with closing(App(app_database)) as app:
        yield app


@pytest.fixture(scope="module")
def vacuumed(servers_folder: Path) -> Iterator[App]:
    """Give the app on a server whose autovacuum begins at once and takes minutes for `messages`."""
    with (
        PostgresServer(servers_folder / "vacuum", SLOW_VACUUM) as server,
        closing(App(make_template(server, "vacuum"))) as app,
    ):
        app.rows("ALTER TABLE messages SET (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0)")
        app.rows("INSERT INTO messages (content) SELECT repeat('x', 500) FROM generate_series(1, 30000)")
        app.rows("DELETE FROM messages")
        yield app


@pytest.mark.parametrize("role", [OWNER, APP])
def test_autovacuum_gives_way(vacuumed: App, role: str) -> None:
    """To a role that owns the table, and to one that may only make triggers on it; and the app writes meanwhile."""
    app = vacuumed
    slowest = 0.0
    stopping = threading.Event()

    def write() -> None:
        nonlocal slowest
        with closing(psycopg2.connect(app.urls.app)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            while not stopping.wait(0.02):
                began = time.monotonic()
                cursor.execute("INSERT INTO messages (content) VALUES ('salut')")
                slowest = max(slowest, time.monotonic() - began)

    writer = threading.Thread(target=write)
    for run in (migrate, uninstall):
        eventually(lambda: bool(app.rows(AT_WORK)), 60)
        if run is migrate:
            writer.start()
        began = time.monotonic()
        run(app.urls.of(role))
        assert time.monotonic() - began < 40
    stopping.set()
    writer.join(10)
    assert slowest < 3.5
    assert app.value("SELECT to_regnamespace('bridge')") is None


@pytest.mark.parametrize("run", [migrate, uninstall])
@pytest.mark.parametrize("mode", ["SHARE UPDATE EXCLUSIVE", "ROW EXCLUSIVE"])
def test_a_session_that_holds_the_table_is_named(
    app: App, run: Callable[[str], object], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its process, application and role, since when it holds the lock, and what to do."""
    if run is uninstall:
        migrate(app.urls.owner)
    monkeypatch.setattr(waiting, "ATTEMPTS", 3)
    with closing(psycopg2.connect(app.urls.app, application_name="nightly job")) as holder, holder.cursor() as cursor:
        cursor.execute(f"LOCK TABLE messages IN {mode} MODE")
        for url in (app.urls.owner, app.urls.app)[: 2 if run is migrate else 1]:
            with pytest.raises(DatabaseBusy) as error:
                run(url)
            words = (
                rf"messages stays locked by process {holder.info.backend_pid} \(application nightly job, role {APP},"
                rf" .*since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC, .*pg_terminate_backend\({holder.info.backend_pid}\)"
            )
            assert re.match(words, str(error.value)), str(error.value)
            assert "\n" not in str(error.value)


def test_who_only_reads_is_not_taken_for_the_holder(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that reads for hours keeps no trigger from being made, and is not named."""
    monkeypatch.setattr(waiting, "ATTEMPTS", 3)
    with (
        closing(psycopg2.connect(app.urls.app, application_name="report")) as reader,
        closing(psycopg2.connect(app.urls.app, application_name="job")) as holder,
        reader.cursor() as reading,
        holder.cursor() as holding,
    ):
        reading.execute("SELECT count(*) FROM messages")
        holding.execute("LOCK TABLE messages IN SHARE MODE")
        with pytest.raises(DatabaseBusy, match="application job") as error:
            migrate(app.urls.owner)
        assert "report" not in str(error.value)
        holder.rollback()
        migrate(app.urls.owner)


def test_autovacuum_that_prevents_a_wraparound_is_named(vacuumed: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives way to nobody, so the run says what it is and where its progress stands."""
    app = vacuumed
    app.rows("CREATE TABLE spent (one integer)")
    # Each block that writes spends a transaction id.
    app.rows(
        "DO $$BEGIN FOR i IN 1..100100 LOOP BEGIN INSERT INTO spent VALUES (i); EXCEPTION WHEN division_by_zero THEN"
        " END; END LOOP; END$$"
    )
    app.rows("ALTER TABLE messages SET (autovacuum_freeze_max_age = 100000)")
    wraparound = f"{AT_WORK} AND a.query LIKE '%to prevent wraparound%'"
    eventually(lambda: bool(app.rows(wraparound)), 60)
    [(pid,)] = app.rows(wraparound)
    monkeypatch.setattr(waiting, "ATTEMPTS", 3)
    with pytest.raises(DatabaseBusy, match=rf"messages stays locked by autovacuum's worker {pid} \(since .* UTC\)"):
        migrate(app.urls.owner)
    assert app.rows(wraparound) == [(pid,)]
