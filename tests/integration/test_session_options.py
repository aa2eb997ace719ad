"""What the URL asks of a session is heeded by all, also behind a front that refuses start-up options."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import psycopg2
import psycopg2.extensions
import pytest

from bridge_service.errors import DatabaseUnavailable
from bridge_service.install.plan import migrate
from bridge_service.machine import session
from bridge_service.machine.database import Connection
from tests.support.app import App
from tests.support.databases import execute
from tests.support.refusing_front import RefusingFront, error
from tests.support.roles import SERVICE
from tests.support.service import QUICK, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from bridge_service.demo.servers import PostgresServer, RedisServer
    from tests.support.roles import Urls

RDS: Final = error("FATAL", "0A000", "Feature not supported: RDS Proxy currently doesn't support command-line options.")
REFUSALS: Final = {
    "rds": RDS,
    "pgbouncer": error("FATAL", "08P01", "unsupported startup parameter: options"),
    "without severity": error(None, "XX000", "no options here"),
    "in another language": error("FATAL", "42501", "les options de démarrage sont interdites"),
    "without a word": b"",
}
OURS: Final = "SELECT current_setting('statement_timeout'), current_setting('transaction_isolation')"
OUR_VALUES: Final = [("30s", "read committed")]
PATH: Final = "SELECT current_setting('search_path')"


@pytest.fixture
def front(request: pytest.FixtureRequest, postgres: PostgresServer) -> Iterator[RefusingFront]:
    """Give a front that refuses options as the test asks for, else as RDS Proxy does."""
    with RefusingFront(postgres.port, getattr(request, "param", RDS)) as front:
        yield front


def through(front: RefusingFront, url: str, postgres: PostgresServer) -> str:
    """Return a URL that leads through the front."""
    return url.replace(f":{postgres.port}/", f":{front.port}/")


@pytest.mark.parametrize("front", REFUSALS.values(), ids=REFUSALS.keys(), indirect=True)
def test_a_front_that_refuses_options_gets_them_with_each_call(
    front: RefusingFront, bridge_database: Urls, postgres: PostgresServer
) -> None:
    """In whatever words the front refuses, the settings hold; it refuses once, and later connections do not ask."""
    url = through(front, bridge_database.service, postgres)
    for _ in range(3):
        with closing(Connection(url, application="test")) as connection:
            assert connection.execute(OURS) == OUR_VALUES
    assert (front.refused, front.let_through) == (1, 3)


def test_a_refusal_is_forgotten_after_a_while(
    front: RefusingFront, bridge_database: Urls, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that refused while it started, or a front that was replaced, gets session options again."""
    monkeypatch.setattr(session, "REFUSAL_SECONDS", 0.0)
    url = through(front, bridge_database.service, postgres)
    for _ in range(2):
        with closing(Connection(url, application="test")) as connection:
            assert connection.execute(OURS) == OUR_VALUES
    assert (front.refused, front.let_through) == (2, 2)


def test_another_failure_is_told_as_it_is(front: RefusingFront, postgres: PostgresServer) -> None:
    """A database that is not there is not taken for a refusal of options."""
    with pytest.raises(DatabaseUnavailable, match=r'database "no_such" does not exist'):
        Connection(f"{postgres.url('no_such', SERVICE)}", application="test")
    with pytest.raises(DatabaseUnavailable, match="RDS Proxy"):
        Connection(f"postgresql://{SERVICE}@127.0.0.1:{front.port}/no_such", application="test")


@pytest.mark.parametrize("behind", [False, True], ids=["directly", "behind a front"])
@pytest.mark.parametrize(
    ("options", "path"),
    [
        ("-c search_path=chat", "chat"),
        ("-csearch_path=chat,public", "chat,public"),
        ("--search-path=chat", "chat"),
        (r"-c search_path=chat,\ public -c statement_timeout=1 -c work_mem=64kB", "chat, public"),
        ("-c search_path=chat -c default_transaction_isolation=serializable", "chat"),
        ("-c application_name=100%s -c search_path=chat", "chat"),
    ],
)
def test_options_of_the_url_are_heeded_and_ours_win(
    front: RefusingFront, bridge_database: Urls, postgres: PostgresServer, options: str, path: str, *, behind: bool
) -> None:
    """Each form that PostgreSQL reads reaches the session, in a URL and in a keyword DSN; what we need wins."""
    url = f"{bridge_database.service}?options={quote(options)}"
    url = through(front, url, postgres) if behind else url
    dsn = " ".join(
        f"{name}='" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"
        for name, value in psycopg2.extensions.parse_dsn(url).items()
    )
    for address in (url, dsn):
        with closing(Connection(address, application="test")) as connection:
            assert connection.execute(PATH) == [(path,)]
            assert connection.execute(OURS) == OUR_VALUES
            assert connection.execute("SELECT %s, '%%'", ("é %s",)) == [("é %s", "%")]


@pytest.mark.parametrize("behind", [False, True], ids=["directly", "behind a front"])
def test_options_of_the_environment_are_heeded_unless_the_url_has_some(
    front: RefusingFront,
    bridge_database: Urls,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    *,
    behind: bool,
) -> None:
    """PGOPTIONS holds as libpq has it: the URL's own options replace it."""
    monkeypatch.setenv("PGOPTIONS", "-c search_path=environment")
    url = through(front, bridge_database.service, postgres) if behind else bridge_database.service
    with closing(Connection(url, application="test")) as connection:
        assert connection.execute(PATH) == [("environment",)]
        assert connection.execute(OURS) == OUR_VALUES
    with closing(Connection(f"{url}?options={quote('-c search_path=chat')}", application="test")) as connection:
        assert connection.execute(PATH) == [("chat",)]


def test_an_option_that_can_go_with_no_call_keeps_the_refusal(
    front: RefusingFront, bridge_database: Urls, postgres: PostgresServer
) -> None:
    """What the operator asks for is never dropped silently: the front's own words say why nothing goes on."""
    url = through(front, bridge_database.service, postgres)
    with pytest.raises(DatabaseUnavailable, match="RDS Proxy"):
        Connection(f"{url}?options={quote('-c search_path=chat -e')}", application="test")


@pytest.mark.parametrize("behind", [False, True], ids=["directly", "behind a front"])
def test_migrate_and_processes_find_the_same_tables(
    front: RefusingFront,
    app_database: Urls,
    postgres: PostgresServer,
    redis_server: RedisServer,
    redis_client: redis.Redis,
    *,
    behind: bool,
) -> None:
    """An app in a schema that only the URL's options name is installed, checked and answered."""
    del redis_client  # only asked for because it empties Redis
    execute(
        app_database.admin,
        "CREATE SCHEMA chat; GRANT USAGE ON SCHEMA chat TO PUBLIC",
        *(f"ALTER TABLE {table} SET SCHEMA chat" for table in ("profiles", "matches", "messages")),
    )
    asked = f"?options={quote('-c search_path=chat')}"
    owner, service_url = f"{app_database.owner}{asked}", f"{app_database.service}{asked}"
    if behind:
        owner, service_url = (through(front, url, postgres) for url in (owner, service_url))
    migrate(owner, runtime_role=SERVICE)
    execute(app_database.admin, f'ALTER DATABASE "{app_database.name}" SET search_path = chat')  # for the test's app
    execute(app_database.admin, f'ALTER ROLE {SERVICE} IN DATABASE "{app_database.name}" SET search_path = elsewhere')
    with (
        Service({"DATABASE_URL": service_url, "REDIS_URL": redis_server.url(), **QUICK}) as service,
        closing(App(app_database)) as app,
    ):
        service.up()
        match = app.old_match()
        app.write(match, "salut")
        app.wait_for_replies(match, "salut")
        assert service.stop() == [0, 0]
