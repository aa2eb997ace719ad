"""An async responder as it runs in production: real processes, and a model's server that holds its answers back."""

from __future__ import annotations

import signal
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import pytest

from bridge_service.demo.servers import PostgresServer
from tests.conftest import QUICK as NO_DISK
from tests.support.app import App
from tests.support.databases import install, make_template
from tests.support.model_server import ModelServer, held, says
from tests.support.service import QUICK, STOP_SECONDS, Service
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from bridge_service.demo.servers import RedisServer

SAID: Final = "Oui, bien sûr."
MANY: Final = 60
THREADS: Final = 2
CONNECTIONS: Final = 4


class Held(ModelServer):
    """A model's server that answers only once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = threading.Event()
        self.does(held(self.may_answer, says(SAID)))


@pytest.fixture
def server() -> Iterator[Held]:
    """Give a model's server that holds its answers back."""
    with Held() as server:
        yield server
        server.may_answer.set()


@pytest.fixture
def asking(service: Service, server: Held) -> Service:
    """Give a service that asks the server; nothing of it runs yet."""
    service.environment.update(RESPONDER="openai", OPENAI_MODEL="local", OPENAI_BASE_URL=server.url)
    return service


def start(service: Service, **environment: str) -> Any:  # noqa: ANN401 - a ServiceProcess
    """Start a scheduler and a worker of few threads; return the worker once both are ready."""
    service.environment.update(environment)
    scheduler, worker = service.start_scheduler(), service.start_worker(threads=THREADS)
    service.wait_until_ready(scheduler)
    service.wait_until_ready(worker)
    return worker


def write(app: App, count: int) -> list[str]:
    """Write a message in each of so many conversations; return these."""
    matches = [app.old_match() for _ in range(count)]
    for match in matches:
        app.write(match, "salut")
    return matches


def test_many_calls_wait_without_a_thread_or_a_connection_each(asking: Service, app: App, server: Held) -> None:
    """All are under way at once, each is answered once, and a worker with two threads has four connections at most."""
    worker = start(asking)
    matches = write(app, MANY)
    server.wait_for_call(MANY, timeout=30)
    assert all(child.num_threads() < MANY / 2 for child in worker.children())
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bridge worker'"
    assert app.value(f"{ours} AND datname = current_database()") <= CONNECTIONS
    server.may_answer.set()
    eventually(lambda: all(app.said(match) == [SAID] for match in matches), timeout=30)
    assert len(server.calls) == MANY
    assert app.value(f"{ours} AND datname = current_database()") <= CONNECTIONS


def test_no_more_calls_are_under_way_than_may(
    asking: Service, app: App, server: Held, redis_client: redis.Redis
) -> None:
    """MAX_COMPOSING bounds them; the other turns stay in Redis, where another worker finds them."""
    start(asking, MAX_COMPOSING="3")
    matches = write(app, 8)
    server.wait_for_call(3)
    eventually(lambda: [redis_client.llen(key) for key in redis_client.keys("*}:bot_messages")] == [5])
    assert len(server.calls) == 3
    server.may_answer.set()
    eventually(lambda: all(app.said(match) == [SAID] for match in matches), timeout=30)
    assert len(server.calls) == 8


def test_E2_a_call_whose_lease_is_lost_is_cancelled(asking: Service, app: App, server: Held) -> None:  # noqa: N802
    """The connection to the model closes, nothing is said of the turn, and the next claim is answered once."""
    start(asking)
    [match] = write(app, 1)
    call = server.wait_for_call()
    app.rows("UPDATE bridge.turns SET token = NULL, due_at = bridge.now()")
    app.rows("NOTIFY bridge_due")
    assert call.closed.wait(10)
    server.wait_for_call(2)
    server.may_answer.set()
    app.wait_for_replies(match, SAID)
    assert app.rows("SELECT attempts, state FROM bridge.turns") == [(0, "answered")]
    assert not asking.lines("WARNING|ERROR|Traceback")


def test_a_call_that_takes_too_long_is_cancelled(service: Service, app: App) -> None:
    """After RESPONDER_TIMEOUT, also one that does not heed it; its turn is a lost lease and no failed attempt."""
    service.environment.update(RESPONDER="tests.support.responders:deaf", RESPONDER_TIMEOUT="1", MAX_COMPOSING="1")
    start(service)
    [match] = write(app, 1)
    service.wait_for_line(f"en préparation .match {match}")
    [other] = write(app, 1)  # it needs the one slot
    app.wait_for_replies(other, "salut", timeout=20)
    assert app.rows("SELECT attempts FROM bridge.turns WHERE match_id = %s", match) == [(0,)]
    assert set(service.stop()) == {0}
    assert not service.lines("CRITICAL|Traceback")


def test_a_drain_cancels_no_call_that_ends_in_time(asking: Service, app: App, server: Held) -> None:
    """SIGTERM fetches nothing more, and the reply of the call under way is delivered before the worker ends."""
    worker = start(asking)
    [match] = write(app, 1)
    call = server.wait_for_call()
    worker.signal(signal.SIGTERM)
    asking.wait_for_line("Arrêt demandé", process=worker)
    server.may_answer.set()
    assert worker.wait(STOP_SECONDS) == 0
    assert not call.closed.is_set()
    assert app.said(match) == [SAID]


@pytest.mark.slow
def test_postgresql_restarts_while_a_call_is_under_way(
    servers_folder: Path, redis_server: RedisServer, redis_client: redis.Redis, server: Held
) -> None:
    """The answer that was paid for comes while PostgreSQL is away, and is delivered when it is back: one call."""
    del redis_client
    with PostgresServer(servers_folder / "restarting", NO_DISK) as postgres:
        urls = make_template(postgres, "restarting")
        install(urls)
        model = {"RESPONDER": "openai", "OPENAI_MODEL": "local", "OPENAI_BASE_URL": server.url}
        environment = {"DATABASE_URL": urls.service, "REDIS_URL": redis_server.url(), **QUICK, **model}
        with Service(environment) as service:
            worker = start(service)
            with closing(App(urls)) as app:
                [match] = write(app, 1)
                server.wait_for_call()
                # A commit that is on disk, and with it the claim before it: a crash forgets no claim then (T6).
                app.rows("SET synchronous_commit = on")
                app.rows("UPDATE public.profiles SET first_name = first_name")
            postgres.kill()
            server.may_answer.set()
            service.wait_for_line("Connexion PostgreSQL perdue", process=worker)
            postgres.start()
            with closing(App(urls)) as app:
                app.wait_for_replies(match, SAID, timeout=20)
    assert len(server.calls) == 1
