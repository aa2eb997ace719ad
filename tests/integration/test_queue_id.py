"""The ID in the names of the queue's keys: what it tells apart, and how processes come to agree on it."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import psycopg2
import pytest

from bridge_service.brokers import queue_id
from bridge_service.brokers.broker import WaitingBroker
from bridge_service.brokers.messages import QUEUE_NAME, message_for
from bridge_service.brokers.queue_id import QueueId
from bridge_service.demo.servers import PostgresServer
from bridge_service.errors import DatabaseUnavailable, SchemaMissing
from bridge_service.install.plan import migrate
from bridge_service.install.uninstall import uninstall
from tests.conftest import QUICK as QUICK_SERVER
from tests.support.app import App, Client
from tests.support.clock import install_clock
from tests.support.databases import copy_of, execute, install, make_template
from tests.support.recorder import Recorder
from tests.support.roles import SERVICE, Urls
from tests.support.service import QUICK, Service
from tests.support.store import store_on
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from bridge_service.demo.servers import RedisServer

DAY: Final = 86_400
STORED: Final = "SELECT id FROM bridge.installation"
BUILT_IN_DELAY: Final = 15


def id_of(urls: Urls) -> str:
    """Return the ID as the run-time role is told it."""
    with store_on(urls) as store:
        return store.queue_id()


@pytest.fixture
def copies(postgres: PostgresServer, bridge_template: str) -> Iterator[tuple[Urls, Urls]]:
    """Give two databases of which one is a copy of the other, in all that is stored."""
    with copy_of(postgres, bridge_template) as one, copy_of(postgres, bridge_template) as other:
        with closing(Client(one.admin)) as here, closing(Client(other.admin)) as there:
            assert here.value(STORED) == there.value(STORED)
        yield one, other


# What it tells apart


def test_a_copy_of_a_database_has_another_id(copies: tuple[Urls, Urls]) -> None:
    """Staging that is restored from production has another ID, and each keeps its own from one call to the next."""
    one, other = copies
    assert id_of(one) == id_of(one) != id_of(other)


@pytest.mark.parametrize("function", ["pg_control_system()", "pg_walfile_name(pg_lsn)", "pg_current_wal_lsn()"])
def test_a_server_that_tells_nothing_of_itself_gives_an_id_all_the_same(
    copies: tuple[Urls, Urls], function: str
) -> None:
    """Where a managed PostgreSQL keeps a function to itself, the rest still tells copies on one server apart."""
    for urls in copies:
        execute(urls.admin, f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
    one, other = copies
    assert id_of(one) == id_of(one) != id_of(other)


def test_a_schema_that_was_restored_without_its_rows_has_no_id(bridge_database: Urls) -> None:
    """No two such installations share an empty ID: the processes wait for `migrate`."""
    execute(bridge_database.admin, "DELETE FROM bridge.installation")
    with pytest.raises(SchemaMissing):
        id_of(bridge_database)


def test_a_new_installation_has_another_id(bridge_database: Urls) -> None:
    """What an installation that is gone left in Redis is not taken for the new one's."""
    before = id_of(bridge_database)
    uninstall(bridge_database.owner)
    migrate(bridge_database.owner, runtime_role=SERVICE)
    assert id_of(bridge_database) != before


@pytest.mark.slow
def test_a_physical_copy_differs_once_it_is_promoted(servers_folder: Path) -> None:
    """A copy of the files has the server's identifier, too; as a standby it tells no ID, and promoted another one."""
    original = PostgresServer(servers_folder / f"original_{uuid4().hex}", QUICK_SERVER)
    copy = PostgresServer(servers_folder / f"copy_{uuid4().hex}", QUICK_SERVER)
    with ExitStack() as stack:
        stack.enter_context(original)
        urls = make_template(original, "production")
        install(urls)
        before = id_of(urls)
        original.stop()
        copy.directory.mkdir()
        shutil.copytree(original.directory / "data", copy.directory / "data")
        for path in (copy.directory / "data", *(copy.directory / "data").rglob("*")):
            copy._give(path)
        signal = copy.directory / "data" / "standby.signal"
        signal.touch()
        copy._give(signal)
        stack.enter_context(copy)
        original.start()
        assert id_of(urls) == before

        there = Urls(copy.url("production"))
        with pytest.raises(DatabaseUnavailable, match="25006"):
            id_of(there)
        with closing(psycopg2.connect(there.admin)) as connection, connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_promote()")
        assert id_of(there) == id_of(there) != before


# How processes learn it


class Oracle:
    """Stands in for PostgreSQL."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: str | None = None

    def __call__(self) -> str:
        """Answer, if there is one."""
        self.asked += 1
        if self.answer is None:
            raise DatabaseUnavailable("away")
        return self.answer


def test_it_is_asked_for_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many commands cost one call; a new ID is learned; while PostgreSQL is away the last one counts."""
    oracle = Oracle()
    ask = QueueId(oracle)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            ask()
    oracle.answer = "one"
    assert {ask() for _ in range(10)} == {"one"}
    assert oracle.asked == 3
    oracle.answer = "two"
    assert ask() == "one"
    monkeypatch.setattr(queue_id, "REMEMBER_SECONDS", 0.0)
    ask._ask_at = 0.0
    assert ask() == "two"
    oracle.answer = None
    assert ask() == "two"


@pytest.mark.slow
def test_a_new_installation_under_running_processes_is_served(
    bridge_database: Urls, redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    """Scheduler and workers agree on the new ID, and the scheduler writes its policy there, without a restart."""
    del redis_client  # only asked for because it empties Redis
    with (
        Service({"DATABASE_URL": bridge_database.service, "REDIS_URL": redis_server.url(), **QUICK}) as service,
        closing(App(bridge_database)) as app,
    ):
        service.up(workers=2)
        for _ in range(2):
            uninstall(bridge_database.owner)
            migrate(bridge_database.owner, runtime_role=SERVICE)
            eventually(lambda: app.value("SELECT grouping_delay FROM bridge.policy(NULL)") != BUILT_IN_DELAY, 30)
            for text in ("salut", "encore"):
                match = app.old_match()
                app.write(match, text)
                app.wait_for_replies(match, text, timeout=25)
        assert service.stop() == [0, 0, 0]


# Several installations, several versions


@pytest.mark.slow
def test_two_installations_share_a_redis(
    copies: tuple[Urls, Urls], redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    """Production beside its copy: their turns have the same ids, and each is answered at once by its own worker."""
    del redis_client  # only asked for because it empties Redis
    with ExitStack() as stack:
        apps, services = [], []
        for urls in copies:
            environment = {"DATABASE_URL": urls.service, "REDIS_URL": redis_server.url(), **QUICK}
            services.append(stack.enter_context(Service(environment)))
            apps.append(stack.enter_context(closing(App(urls))))
        for service in services:
            service.up()
        for number in range(5):
            matches = [app.old_match() for app in apps]
            for app, match in zip(apps, matches, strict=True):
                app.write(match, f"salut {number}")
            for app, match in zip(apps, matches, strict=True):
                app.wait_for_replies(match, f"salut {number}", timeout=5)
        for app, service in zip(apps, services, strict=True):
            assert app.value("SELECT max(answered_at - queued_at) < interval '5 s' FROM bridge.turns")
            assert service.stop() == [0, 0]


def test_what_lies_under_the_keys_of_the_release_before_is_pushed_again(
    bridge_database: Urls, redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    """An upgrade loses nothing: a turn whose push lies under the old keys goes out at its due time, and they end."""
    install_clock(bridge_database)
    old = "dramatiq:bot_messages"
    with (
        Service({"DATABASE_URL": bridge_database.service, "REDIS_URL": redis_server.url(), **QUICK}) as service,
        closing(App(bridge_database)) as app,
    ):
        scheduler = service.start_scheduler()
        service.wait_until_ready(scheduler)
        match = app.old_match()
        app.write(match, "salut")
        service.wait_for_line("Message poussé")
        assert service.stop() == [0]
        turn = app.value("SELECT id FROM bridge.turns")
        redis_client.flushall()
        redis_client.rpush(old, f"compose:{turn}")
        redis_client.hset(f"{old}.msgs", f"compose:{turn}", json.dumps({"actor_name": "compose", "args": [turn]}))

        service.up()
        app.pass_time(20)
        app.wait_for_replies(match, "salut")
        for key in (old, f"{old}.msgs"):
            assert 0 < redis_client.ttl(key) <= DAY
        assert service.stop() == [0, 0]


def test_the_keys_of_an_installation_that_is_gone_end(redis_server: RedisServer, redis_client: redis.Redis) -> None:
    """Each key ends a day after the last push, which comes every 20 s while a turn is queued; a fetch adds nothing."""
    with closing(WaitingBroker(redis_server.url(), emit=Recorder(), middleware=[], queue_id=lambda: "gone")) as broker:
        broker.enqueue_many([message_for("compose", 1), message_for("compose", 2)])
        keys = set(redis_client.scan_iter("dramatiq:{gone}:*"))
        assert len(keys) == 3
        assert {redis_client.ttl(key) for key in keys} <= {DAY, DAY - 1}
        for key in keys:
            redis_client.expire(key, 100)
        broker.fetch(QUEUE_NAME, 1)
        assert redis_client.ttl(broker.key(QUEUE_NAME)) <= 100
        broker.enqueue_many([message_for("compose", 2)])
        assert {redis_client.ttl(key) for key in keys} <= {DAY, DAY - 1}
        redis_client.delete(broker.bell(QUEUE_NAME))
        broker.fetch(QUEUE_NAME, 0)
        eventually(lambda: 0 < redis_client.ttl(broker.bell(QUEUE_NAME)) <= DAY)
