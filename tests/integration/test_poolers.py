"""The service behind a real pgbouncer: session mode, where LISTEN works, and transaction mode, where it is mute."""

from __future__ import annotations

import os
import re
import shutil
import sys
from contextlib import closing
from signal import SIGINT
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import psycopg2
import pytest

from bridge_service.demo.servers import PROBE_SECONDS, UNPRIVILEGED_USER, _let_pass, _Server
from bridge_service.install.transaction import begin
from bridge_service.machine import database
from bridge_service.machine.database import Connection, Database
from tests.support.app import App
from tests.support.roles import SERVICE
from tests.support.service import QUICK, Service
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from bridge_service.demo.servers import PostgresServer, RedisServer
    from tests.support.roles import Urls

BINARY: Final = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
TYPING_SECONDS: Final = 1.5
"""Long enough that a sweep every five seconds would mostly be late, short enough for a test."""

pytestmark = pytest.mark.skipif(
    BINARY is None, reason="no pgbouncer on this machine: .ci/packages installs it as root on Debian"
)


class Pgbouncer(_Server):
    """A pgbouncer in front of a PostgreSQL that trusts everybody, as a child process.

    Parameters:
      directory: holds configuration and log.
      behind: the PostgreSQL.
      settings: lines of its [pgbouncer] section that replace or join the defaults, by name.
    """

    _stop_signal = SIGINT

    def __init__(self, directory: Path, behind: PostgresServer, **settings: str) -> None:
        super().__init__(directory, settings)
        self._behind = behind

    def url(self, name: str = "postgres") -> str:
        """Return the address of one database."""
        return f"postgresql://{SERVICE}@127.0.0.1:{self.port}/{name}"

    def _launch(self) -> subprocess.Popen[bytes]:
        users = self.directory / "users.txt"
        users.write_text(f'"{SERVICE}" ""\n')
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": str(users),
            **self.settings,
        }
        lines = [f"{name} = {value}" for name, value in settings.items()]
        behind = f"* = host=127.0.0.1 port={self._behind.port}"
        configuration = self.directory / "pgbouncer.ini"
        configuration.write_text("\n".join(["[databases]", behind, "[pgbouncer]", *lines, ""]))
        _let_pass(self.directory)
        assert BINARY is not None
        # As root it refuses to run.
        return self._spawn(BINARY, configuration, user=UNPRIVILEGED_USER if os.geteuid() == 0 else None)

    def _accepts_connections(self) -> bool:
        try:
            psycopg2.connect(self.url(), connect_timeout=PROBE_SECONDS).close()
        except psycopg2.OperationalError:
            return False
        return True


@pytest.fixture
def pooler(
    request: pytest.FixtureRequest, servers_folder: Path, postgres: PostgresServer, bridge_database: Urls
) -> Iterator[Pgbouncer]:
    """Give a pgbouncer in the mode that the test asks for, with pgbouncer's own defaults otherwise."""
    del bridge_database  # dropped only after its pooler has ended
    mode, _, ignored = request.param.partition(" ignoring ")
    settings = {"ignore_startup_parameters": ignored} if ignored else {}
    with Pgbouncer(servers_folder / f"pgbouncer_{uuid4().hex}", postgres, pool_mode=mode, **settings) as pooler:
        yield pooler


@pytest.fixture
def service(
    pooler: Pgbouncer, bridge_database: Urls, redis_server: RedisServer, redis_client: redis.Redis
) -> Iterator[Service]:
    """Give a service of which nothing runs yet, and which reaches its database only through the pooler."""
    del redis_client  # only asked for because it empties Redis
    url = pooler.url(bridge_database.name)
    with Service({"DATABASE_URL": url, "REDIS_URL": redis_server.url(), **QUICK}) as service:
        yield service


@pytest.fixture
def app(bridge_database: Urls) -> Iterator[App]:
    """Give the app, which speaks to PostgreSQL itself."""
    with closing(App(bridge_database)) as app:
        yield app


def converse(app: App) -> None:
    """Let ten people write at once, two messages each, and check that each is answered once, with both."""
    matches = [app.old_match() for _ in range(10)]
    for text in ("un", "deux"):
        for match in matches:
            app.write(match, f"{text} {match}")
    for match in matches:
        app.wait_for_replies(match, f"un {match}\ndeux {match}")


@pytest.mark.slow
@pytest.mark.parametrize("pooler", ["transaction"], indirect=True)
def test_transaction_mode_is_recognised_and_polled(service: Service, app: App, pooler: Pgbouncer) -> None:
    """LISTEN that is accepted and delivers nothing is found out at the start; what is due is found without bells."""
    characters = len(f"un {uuid4()}\ndeux {uuid4()}")
    scheduler = service.start_scheduler()
    worker = service.start_worker(TYPING_SPEED_CPS=f"{characters / TYPING_SECONDS}")
    service.wait_for_line("Écoute muette", process=scheduler)
    service.wait_until_ready(worker)

    converse(app)
    told = service.wait_for_line("envoyée", count=10)
    late = [float(re.findall(r"retard: ([\d.]+)s", line.text)[0]) for line in told]
    assert max(late) < 1.0, "a reply waited for the sweep"
    assert not service.lines("Écoute active|Notification reçue|PostgreSQL perdue|CRITICAL|Traceback")

    pooler.kill()
    service.wait_for_line("PostgreSQL perdue", process=scheduler)
    pooler.start()
    converse(app)
    assert not service.lines("Écoute active|CRITICAL|Traceback")
    assert service.stop() == [0, 0]


@pytest.mark.parametrize("pooler", ["session"], indirect=True)
def test_session_mode_listens(service: Service, app: App) -> None:
    """In session mode notifications arrive, and nothing is polled."""
    service.up()

    converse(app)

    assert service.lines("📨 Notification reçue")
    assert not service.lines("Écoute muette|PostgreSQL perdue|CRITICAL|Traceback")
    assert service.stop() == [0, 0]


@pytest.mark.parametrize("pooler", ["transaction"], indirect=True)
def test_refused_session_options_go_with_each_call(pooler: Pgbouncer) -> None:
    """A pooler that takes no session options gets none; its sessions have them for as long as a call of ours lasts."""
    wanted = "SELECT current_setting('statement_timeout'), current_setting('tcp_user_timeout')"
    with closing(Connection(pooler.url(), application="test")) as connection:
        assert connection.execute(wanted) == [("30s", "10000")]
    assert "unsupported startup parameter" in pooler._log_path.read_text()
    with closing(psycopg2.connect(pooler.url())) as neighbour, neighbour.cursor() as cursor:
        cursor.execute(wanted)
        assert cursor.fetchone() == ("0", "0")

    with closing(Connection(pooler._behind.url(user=SERVICE), application="test")) as connection:
        assert connection.execute(wanted) == [("30s", "10000")]


@pytest.mark.parametrize("pooler", ["transaction ignoring options", "session ignoring options"], indirect=True)
def test_options_that_a_pooler_drops_go_with_each_call(pooler: Pgbouncer) -> None:
    """A pooler that is told to ignore options lets them be asked for and sets none: that is found out."""
    url = f"{pooler.url()}?options=-c%20search_path%3Dchat"
    wanted = "SELECT current_setting('statement_timeout'), current_setting('search_path')"
    with closing(Connection(url, application="test")) as connection:
        assert connection.execute(wanted) == [("30s", "chat")]
    with begin(url) as cursor:
        cursor.execute("SELECT current_setting('search_path')")
        assert cursor.fetchone() == ("chat, pg_temp",)


@pytest.mark.skipif(sys.platform != "linux", reason="PostgreSQL knows TCP_USER_TIMEOUT on Linux only")
@pytest.mark.parametrize("pooler", ["transaction"], indirect=True)
def test_a_client_that_was_frozen_in_an_answer_loses_its_locks_behind_a_pooler_too(
    pooler: Pgbouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the client does not take the pooler does not, and PostgreSQL ends the session."""
    options = database._CALL_OPTIONS.replace("tcp_user_timeout = 10000", "tcp_user_timeout = 1000")
    monkeypatch.setattr(database, "_CALL_OPTIONS", options)
    before = database._CALL_ISOLATION + options
    with (
        closing(Connection(pooler.url(), application="frozen")) as frozen,
        closing(Connection(pooler._behind.url(user=SERVICE), application="test")) as watch,
    ):
        [there] = frozen.execute("SELECT pg_backend_pid()")  # the pooler has this one session, and keeps it
        frozen.raw.cursor().execute(before + "SELECT repeat('x', 30000000), pg_advisory_xact_lock(7)")

        eventually(lambda: watch.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", there) == [])
        assert watch.execute("SELECT pg_try_advisory_xact_lock(7)") == [(True,)]


@pytest.mark.parametrize("pooler", ["transaction"], indirect=True)
def test_what_others_listen_for_is_not_kept(pooler: Pgbouncer) -> None:
    """A pool whose connections get the notifications of another client's LISTEN does not keep them for ever."""
    connections: list[Connection] = []

    def connect() -> Connection:
        connections.append(Connection(pooler.url(), application="test"))
        return connections[-1]

    with closing(connect()) as listener, closing(Database(connect)) as database:
        listener.execute("LISTEN bot_events")
        for _ in range(3):
            database.call("SELECT pg_notify('bot_events', '')")

        [_, pooled] = connections
        assert pooled.raw.notifies == []
        # The same without the pool proves that there was something not to keep.
        pooled.execute("SELECT pg_notify('bot_events', '')")
        assert len(pooled.raw.notifies) == 1
