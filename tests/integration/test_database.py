from __future__ import annotations

import re
import sys
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import psycopg2
import psycopg2.errors
import pytest
from psycopg2 import errorcodes

from bridge_service.errors import (
    BridgeError,
    DatabaseBusy,
    DatabaseRefused,
    DatabaseUnavailable,
    RightMissing,
    SchemaMissing,
    StepRefused,
)
from bridge_service.machine import database as module
from bridge_service.machine.blame import Blame, blame
from bridge_service.machine.database import Connection, Database, Row, translate
from bridge_service.machine.steps import Store
from tests.chaos.proxy import FINE, Way, Weather
from tests.support.app import App
from tests.support.policy import set_grouping
from tests.support.waiting import eventually
from tests.support.weather import forgets_sockets, proxy_to

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bridge_service.demo.servers import PostgresServer
    from tests.chaos.proxy import Proxy
    from tests.support.roles import Urls

STALLED: Final = Weather(stalled=frozenset({Way.ANSWERS}))
PATIENCE: Final = 0.3


class Pool:
    """A database whose connections are counted and closed in the end."""

    def __init__(self, url: str, kind: type[Connection] = Connection) -> None:
        self.connections: list[Connection] = []
        self.url = url
        self._kind = kind
        self.database = Database(self._connect)

    def _connect(self) -> Connection:
        connection = self._kind(self.url, application="test pool")
        self.connections.append(connection)
        return connection

    def close(self) -> None:
        """Close all of them."""
        self.database.close()
        for connection in self.connections:
            connection.close()


@contextmanager
def pool_on(url: str, kind: type[Connection] = Connection) -> Iterator[Pool]:
    """Give a pool."""
    with closing(Pool(url, kind)) as pool:
        yield pool


@pytest.fixture
def pool(bridge_database: Urls) -> Iterator[Pool]:
    """Give a pool on a database with the bridge."""
    with pool_on(bridge_database.service) as pool:
        yield pool


@pytest.fixture
def app(bridge_database: Urls) -> Iterator[App]:
    """Give another connection to the same database."""
    with closing(App(bridge_database)) as app:
        yield app


class Impatient(Connection):
    """One that waits for an answer as long as these tests want to."""

    def execute(self, statement: str, parameters: Sequence[object] = (), *, seconds: float = PATIENCE) -> list[Row]:
        """Run a statement."""
        return super().execute(statement, parameters, seconds=seconds)


def kill(app: App) -> None:
    """End every backend of the pool, and return once they are gone."""
    ours = "FROM pg_stat_activity WHERE application_name = 'test pool' AND datname = current_database()"
    app.rows(f"SELECT pg_terminate_backend(pid) {ours}")
    eventually(lambda: app.value(f"SELECT count(*) {ours}") == 0)


# Calls


def test_a_call_returns_its_rows_and_is_committed(pool: Pool, app: App) -> None:
    """What it wrote is seen by others as soon as it returned; what returns nothing gives no rows."""
    assert pool.database.call("SELECT %s::int, %s::text", 7, "é") == [(7, "é")]
    assert pool.database.call("LISTEN nothing") == []
    pool.database.call("SELECT bridge.note_incident(%s, 'worker', 1, 0)", "redis_lost")
    assert app.rows("SELECT kind FROM bridge.incidents") == [("redis_lost",)]


def test_connections_are_kept_for_the_next_call(pool: Pool, app: App) -> None:
    """One thread needs one; nothing is opened before the first call; and it bears the process's name."""
    assert pool.connections == []
    for _ in range(3):
        pool.database.call("SELECT 1")
    assert len(pool.connections) == 1
    assert app.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'test pool'") == 1


def test_threads_share_no_connection_at_the_same_time(pool: Pool) -> None:
    """Many calls from many threads give each its own answer, over as many connections as there are threads at most."""
    failures: list[object] = []

    def work(number: int) -> None:
        for _ in range(20):
            rows = pool.database.call("SELECT %s::int, pg_sleep(0.001)", number)
            if rows[0][0] != number:
                failures.append(rows)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failures == []
    assert 1 <= len(pool.connections) <= 8


def test_a_limited_pool_opens_no_more_connections_than_it_may(pool: Pool) -> None:
    """Twelve threads get their answers over two connections."""
    pool.database.limit(2)
    rows: list[list[Row]] = []

    def work(number: int) -> None:
        rows.extend(pool.database.call("SELECT %s::int, pg_sleep(0.001)::text", number) for _ in range(5))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(number for [(number, _)] in rows) == sorted([*range(12)] * 5)
    assert 1 <= len(pool.connections) <= 2


def test_every_call_is_read_committed_whatever_the_database_says(bridge_database: Urls, app: App) -> None:
    """The steps look again after a lock, which another isolation level would not let them do."""
    name = app.value("SELECT current_database()")
    app.rows(f'ALTER DATABASE "{name}" SET default_transaction_isolation = serializable')
    with pool_on(bridge_database.service) as pool:
        assert pool.database.call("SHOW transaction_isolation") == [("read committed",)]
        assert pool.database.call("SHOW statement_timeout") == [("30s",)]


def test_any_character_comes_and_goes_whatever_the_database_says(bridge_database: Urls, app: App) -> None:
    """A client encoding of the database or the role that lacks some characters is not the bridge's."""
    name = app.value("SELECT current_database()")
    app.rows(f"ALTER DATABASE \"{name}\" SET client_encoding = 'LATIN1'")
    with pool_on(bridge_database.service) as pool:
        assert pool.database.call("SELECT %s || chr(129412)", "🦄 é ") == [("🦄 é 🦄",)]


@pytest.mark.skipif(sys.platform != "linux", reason="PostgreSQL knows TCP_USER_TIMEOUT on Linux only")
def test_a_client_that_was_frozen_in_an_answer_loses_its_locks(
    bridge_database: Urls, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL ends a session whose client takes nothing of its answer any more, and everybody else goes on."""
    there = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'frozen'"
    with closing(Connection(bridge_database.service, application="test")) as connection:
        assert connection.execute("SHOW tcp_user_timeout") == [("10000",)]
    options = module._SESSION_OPTIONS.replace("tcp_user_timeout=10000", "tcp_user_timeout=1000")
    monkeypatch.setattr(module, "_SESSION_OPTIONS", options)
    with closing(Connection(bridge_database.service, application="frozen")) as frozen:
        cursor = frozen.raw.cursor()
        cursor.execute("SELECT repeat('x', 30000000), pg_advisory_xact_lock(7)")
        eventually(lambda: app.value(there) == 0)
        assert app.value("SELECT pg_try_advisory_lock(7)")


def test_a_pooler_that_refuses_session_options_gets_them_with_each_call(
    bridge_database: Urls, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is connected to a second time, and only for that reason."""
    tried: list[str] = []
    opens = Connection._open

    def refusing(self: Connection, url: str, application: str, end: float, options: str) -> Any:  # noqa: ANN401
        tried.append(options)
        if options:
            raise psycopg2.OperationalError("FATAL:  unsupported startup parameter: options")
        return opens(self, url, application, end, options)

    monkeypatch.setattr(Connection, "_open", refusing)
    app.rows(f'ALTER DATABASE "{bridge_database.name}" SET default_transaction_isolation = serializable')
    wanted = "SELECT current_setting('transaction_isolation'), current_setting('statement_timeout'), %s"
    with closing(Connection(bridge_database.service, application="test")) as connection:
        assert connection.execute(wanted, ("é %",)) == [("read committed", "30s", "é %")]
    assert [bool(options) for options in tried] == [True, False]


# Deadlines


@forgets_sockets
def test_a_server_that_swallows_everything_holds_nobody(bridge_database: Urls, postgres: PostgresServer) -> None:
    """A call, and connecting, end at their deadlines with an error to try again on, and leave no connection behind."""
    with proxy_to(postgres.port) as proxy:
        url = _through(proxy, bridge_database.service, postgres)
        with closing(Connection(url, application="test")) as connection:
            proxy.set(STALLED)
            began = time.monotonic()
            with pytest.raises(DatabaseUnavailable, match=r"no answer from PostgreSQL within 0\.3 s"):
                connection.execute("SELECT 1", seconds=PATIENCE)
            assert time.monotonic() - began >= PATIENCE
            assert connection.closed
            with pytest.raises(DatabaseUnavailable, match="no answer"):
                Connection(url, application="test", seconds=PATIENCE)
        assert module.CONNECT_SECONDS + module.CALL_SECONDS <= 12


def test_a_call_that_waits_too_long_for_the_server_ends(pool: Pool) -> None:
    """The deadline is the client's own: no setting of the server is needed for it."""
    with closing(Impatient(pool.url, application="test")) as connection:
        with pytest.raises(DatabaseUnavailable):
            connection.execute("SELECT pg_sleep(5)")
        assert connection.closed
        with pytest.raises(DatabaseUnavailable):
            connection.execute("SELECT 1")


def test_a_server_that_is_not_there_is_unavailable() -> None:
    """One line says so, and nothing of the URL's password stands in it."""
    with pytest.raises(DatabaseUnavailable) as error:
        Connection("postgresql://somebody:geheim@127.0.0.1:1/x", application="test")
    assert "\n" not in str(error.value)
    assert "geheim" not in str(error.value)


# Broken connections


def test_a_killed_connection_is_replaced_without_a_word(pool: Pool, app: App) -> None:
    """The call succeeds all the same, and of several dead neighbours not each costs a failure."""
    barrier = threading.Barrier(3)

    def call() -> None:
        barrier.wait(5)
        pool.database.call("SELECT pg_sleep(0.1)")

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    before = len(pool.connections)
    assert before == 3
    kill(app)
    assert pool.database.call("SELECT 1") == [(1,)]
    assert len(pool.connections) == before + 1
    assert pool.database.call("SELECT 1") == [(1,)]
    assert len(pool.connections) == before + 1


def test_a_session_that_was_ended_for_idling_is_replaced(bridge_database: Urls, app: App) -> None:
    """A server that ends idle sessions is no trouble."""
    name = app.value("SELECT current_database()")
    app.rows(f'ALTER DATABASE "{name}" SET idle_session_timeout = 50')
    with pool_on(bridge_database.service) as pool:
        pool.database.call("SELECT 1")
        eventually(lambda: app.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'test pool'") == 0)
        assert pool.database.call("SELECT 1") == [(1,)]


def test_a_server_that_stays_away_is_told_after_the_second_try(pool: Pool, app: App) -> None:
    """No loop: the caller decides when to try again."""
    pool.database.call("SELECT 1")
    kill(app)
    pool.url = "postgresql://127.0.0.1:1/x"
    with pytest.raises(DatabaseUnavailable):
        pool.database.call("SELECT 1")
    assert len(pool.connections) == 1


@forgets_sockets
@pytest.mark.parametrize("step", ["claim", "finish", "deliver"])
def test_D3_a_commit_in_doubt_is_settled_by_calling_again(  # noqa: N802 - the rule's name
    bridge_database: Urls, postgres: PostgresServer, app: App, step: str
) -> None:
    """PostgreSQL did it and the answer was lost: the step, called again, says what happened, and nothing is doubled."""
    match = app.old_match()
    message = app.write(match, "salut")
    with (
        proxy_to(postgres.port) as proxy,
        pool_on(_through(proxy, bridge_database.service, postgres), Impatient) as pool,
    ):
        connect = pool._connect

        def connect_again() -> Connection:
            proxy.set(FINE)
            return connect()

        pool.database._connect = connect_again
        store = Store(pool.database)
        set_grouping(bridge_database, 0)
        store.group()
        [push] = store.push_due(10)
        turn, token = push.turn_id, uuid4()

        def lose_the_answer(name: str) -> None:
            if step == name:
                proxy.set(STALLED)

        lose_the_answer("claim")
        claimed = store.claim(turn, token)
        assert claimed.task is not None
        assert [line.message_id for line in claimed.task.messages] == [message]
        lose_the_answer("finish")
        pause = 0.0 if step == "finish" else 0.001
        finished = store.finish(turn, token, "coucou", pause=pause)
        if step == "finish":
            assert (finished.name, finished.details.get("again")) == ("answered", True)
        eventually(lambda: app.value("SELECT bool_and(deliver_at <= bridge.now()) FROM bridge.turns"))
        lose_the_answer("deliver")
        delivered = store.deliver(turn)
        assert delivered.name == "answered"
        assert delivered.details.get("again", False) is (step != "claim")
        assert len(pool.connections) >= 2  # a busy machine may cost one more
    assert app.said(match) == ["coucou"]
    assert app.rows("SELECT state, attempts FROM bridge.turns") == [("answered", 0)]


# What the errors say


def test_a_lock_is_told_at_once_and_the_connection_kept(pool: Pool, app: App) -> None:
    """Busy is not lost: nobody connects anew, and nobody tries twice."""
    app.connection.autocommit = False
    app.rows("LOCK TABLE bridge.turns IN ACCESS EXCLUSIVE MODE")
    with pytest.raises(DatabaseBusy):
        pool.database.call("SELECT bridge.reset_pushes()")
    app.connection.rollback()
    assert pool.database.call("SELECT bridge.reset_pushes()") == [(0,)]
    assert len(pool.connections) == 1


CODES: Final = {
    "55P03": DatabaseBusy,
    "40P01": DatabaseBusy,
    "40001": DatabaseBusy,
    "57P01": DatabaseUnavailable,
    "57P02": DatabaseUnavailable,
    "57P03": DatabaseUnavailable,
    "57P05": DatabaseUnavailable,
    "57014": DatabaseUnavailable,
    "25006": DatabaseUnavailable,
    "25P04": DatabaseUnavailable,
    "08006": DatabaseUnavailable,
    "53100": DatabaseUnavailable,
    "53200": DatabaseUnavailable,
    "53300": DatabaseUnavailable,
    "58030": DatabaseUnavailable,
    "XX000": DatabaseUnavailable,
    "XX001": DatabaseUnavailable,
    "3F000": SchemaMissing,
    "22P02": DatabaseRefused,
    "22003": DatabaseRefused,
    "23505": DatabaseRefused,
    "23514": DatabaseRefused,
    "P0001": DatabaseRefused,
    "54000": DatabaseRefused,
    "45000": DatabaseRefused,
    "ZZ001": DatabaseRefused,
    "0A000": RightMissing,
    "42501": RightMissing,
    "42703": RightMissing,
    "42P01": RightMissing,
    "42883": RightMissing,
    "28000": RightMissing,
    "HV000": RightMissing,
}


def test_sql_and_python_lay_each_sqlstate_at_the_same_door(bridge_database: Urls) -> None:
    """Every SQLSTATE that PostgreSQL has, and some that it has not, are judged by one list."""
    states = [*vars(errorcodes).values(), *CODES, "BRG01", "BR001", "45XYZ", "99999", "A0000"]
    states = sorted({state for state in states if isinstance(state, str) and re.fullmatch(r"[0-9A-Z]{5}", state)})
    assert len(states) > 200
    with closing(App(bridge_database)) as app:
        answers = app.rows("SELECT s, bridge.blame(s) FROM unnest(%s::text[]) s", states)
    assert dict(answers) == {state: blame(state) for state in states}
    assert set(dict(answers).values()) == set(Blame)


@pytest.mark.parametrize("code", CODES)
def test_each_sqlstate_says_what_to_do(bridge_database: Urls, code: str) -> None:
    """Run it again, run it again soon, migrate, or call somebody: exactly one of these, in one line."""
    raise_it = "DO $$ BEGIN RAISE EXCEPTION E'it\\nquotes' USING ERRCODE = %s, DETAIL = 'secret words'; END $$"
    with closing(App(bridge_database)) as app, pytest.raises(psycopg2.Error) as raised:
        app.rows(raise_it, code)
    error = translate(raised.value)
    # Whatever the state, the words may quote a message.
    told = f"{type(raised.value).__name__} in a function or trigger"
    assert (type(error), str(error)) == (CODES[code], f"{told} (SQLSTATE {code})")
    if isinstance(error, StepRefused):
        assert error.words == f"it (SQLSTATE {code})"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT bridge.no_such_step()", SchemaMissing),
        ("SELECT * FROM bridge.no_such_table", SchemaMissing),
        ("SELECT bridge.claim('text', 'text')", SchemaMissing),
        ("SELECT no_such_function()", RightMissing),
        ("SELECT * FROM no_such_table", RightMissing),
        ("SELECT 1/0", DatabaseRefused),
        ("SELECT 'x'::uuid", DatabaseRefused),
    ],
)
def test_what_is_missing_of_the_schema_is_told_from_other_mistakes(
    pool: Pool, statement: str, expected: type[BridgeError]
) -> None:
    """Only what lies in schema `bridge` is mended by `migrate`; and the connection is used further."""
    with pytest.raises(BridgeError) as error:
        pool.database.call(statement)
    assert type(error.value) is expected
    assert pool.database.call("SELECT 1") == [(1,)]
    assert len(pool.connections) == 1


def test_no_schema_is_a_missing_schema(app_database: Urls) -> None:
    """On a database that was not migrated."""
    with pool_on(app_database.service) as pool, pytest.raises(SchemaMissing):
        pool.database.call("SELECT bridge.triggers_installed()")


def test_a_role_without_rights_is_told_so(bridge_database: Urls, app: App) -> None:
    """The schema that it may not enter is there, which `migrate` alone does not mend; a step is named."""
    role = f"role_{uuid4().hex}"
    app.rows(f"CREATE ROLE {role} LOGIN")
    try:
        with pool_on(bridge_database.of(role)) as pool:
            with pytest.raises(RightMissing, match="schema bridge"):
                pool.database.call("SELECT bridge.triggers_installed()")
            app.rows(f"GRANT USAGE ON SCHEMA bridge TO {role}")
            with pytest.raises(RightMissing, match="triggers_installed"):
                pool.database.call("SELECT bridge.triggers_installed()")
    finally:
        app.rows(f"DROP OWNED BY {role}")
        app.rows(f"DROP ROLE {role}")


def test_a_database_that_became_read_only_is_waited_for(bridge_database: Urls, app: App) -> None:
    """After a failover to a standby the step is run again, until it is a primary."""
    name = app.value("SELECT current_database()")
    app.write(app.old_match(), "salut")
    app.rows(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    with pool_on(bridge_database.service) as pool:
        store = Store(pool.database)
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable, match="25006"):
                store.group()
        app.rows(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        assert len(store.group()) == 1


def test_no_row_s_value_stands_in_an_error(pool: Pool) -> None:
    """PostgreSQL quotes the row in the detail, and a value that is none of its type in the text: both are left out."""
    with pytest.raises(DatabaseRefused, match="check constraint") as error:
        pool.database.call("SELECT bridge.note_incident('geheim', 'nobody', 1, 0)")
    assert "geheim" not in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(DatabaseRefused) as error:
        pool.database.call("SELECT %s::integer", 'ge"heim')
    assert str(error.value) == "invalid input syntax for type integer (SQLSTATE 22P02)"
    with pytest.raises(RightMissing) as missing:  # and inside a function any of its errors may quote one
        pool.database.call("DO $$ BEGIN EXECUTE 'SELECT geheim'; END $$")
    assert str(missing.value) == "UndefinedColumn in a function or trigger (SQLSTATE 42703)"


# Listening and closing


def test_notifications_are_received_and_a_lost_connection_is_told(bridge_database: Urls, app: App) -> None:
    """They stand in `raw.notifies`; a backend that was killed is noticed without any call."""
    with closing(Connection(bridge_database.service, application="test pool")) as connection:
        connection.execute("LISTEN bridge_test")
        app.rows("NOTIFY bridge_test, 'one'")

        def heard() -> bool:
            connection.receive()
            return bool(connection.raw.notifies)

        eventually(heard)
        assert connection.raw.notifies[0].payload == "one"
        kill(app)

        def lost() -> bool:
            try:
                connection.receive()
            except DatabaseUnavailable:
                return True
            return False

        eventually(lost)
        assert connection.closed


def test_a_pool_keeps_no_notifications(pool: Pool) -> None:
    """A pooler hands over what another client of its listens for; in a pool they would pile up for ever."""
    pool.database.call("LISTEN bridge_test")
    for _ in range(3):
        pool.database.call("SELECT pg_notify('bridge_test', '')")
    assert pool.connections[0].raw.notifies == []


def test_a_closed_pool_closes_what_comes_back(pool: Pool, app: App) -> None:
    """Idle connections at once, one under way as soon as its call returns."""
    pool.database.call("SELECT 1")
    idle = pool.connections[0]
    rows: list[Any] = []
    with ExitStack() as stack:
        app.connection.autocommit = False
        app.rows("SELECT pg_advisory_xact_lock(7)")
        threads = [
            threading.Thread(target=lambda: rows.append(pool.database.call("SELECT pg_advisory_lock_shared(7)")))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
            stack.callback(thread.join, 5)
        eventually(lambda: len(pool.connections) == 2)
        pool.database.close()
        assert not idle.closed
        app.connection.rollback()
    assert len(rows) == 2
    assert all(connection.closed for connection in pool.connections)


def _through(proxy: Proxy, url: str, postgres: PostgresServer) -> str:
    return url.replace(f":{postgres.port}/", f":{proxy.port}/")
