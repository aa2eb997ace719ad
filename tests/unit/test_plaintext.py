"""What lets others read along: URLs without TLS, told of or, if it is required, refused; pages open to a network."""

import pytest

from bridge_service.errors import ConfigurationError
from bridge_service.settings import Settings, is_open, plaintext

HERE = "postgresql://bridge@127.0.0.1/app"
TOKEN = "kanarienvogel-4711"


def named(**environ: str) -> tuple[str, ...]:
    """Return what is warned of, with servers on this machine where none is given."""
    return plaintext(Settings.from_environ({"DATABASE_URL": HERE, "REDIS_URL": "redis://127.0.0.1", **environ}))


@pytest.mark.parametrize(
    "url",
    [
        HERE,
        "postgresql://bridge@localhost/app?sslmode=disable",
        "postgresql://bridge@[::1]:5432/app",
        "postgresql://bridge@/app?host=/run/postgresql",
        "host=db.example.com hostaddr=127.0.0.1 dbname=app",
        "service=app",
        "postgresql://bridge@db.example.com/app?sslmode=require",
        "postgresql://bridge@db.example.com/app?sslmode=verify-full",
        "postgresql://bridge@db.example.com/app?sslrootcert=system",
        "host=db.example.com sslmode=verify-ca dbname=app",
    ],
)
def test_a_postgresql_that_is_here_or_encrypted(url: str) -> None:
    """Nothing is said of a connection that stays on this machine, or that libpq makes with TLS or not at all."""
    assert named(DATABASE_URL=url) == ()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://bridge@db.example.com/app",
        "postgresql://bridge@db.example.com/app?sslmode=prefer",
        "postgresql://bridge@db.example.com/app?sslmode=allow",
        "postgresql://bridge@10.0.0.1/app",
        "postgresql://bridge@[2001:db8::1]/app",
        "postgresql://bridge@localhost,db.example.com/app",
        "host=localhost hostaddr=192.0.2.1 dbname=app",
    ],
)
def test_a_postgresql_elsewhere_without_tls(url: str) -> None:
    """The default of libpq goes on without TLS where the server, or an attacker, says that there is none."""
    assert named(DATABASE_URL=url) == ("DATABASE_URL",)


def test_redis() -> None:
    """It is rediss:// that is encrypted, redis:// is for this machine; BROKER_URL is named if it is another URL."""
    assert named(REDIS_URL="rediss://redis.example.com") == ()
    assert named(REDIS_URL="redis://[::1]:6379/0") == ()
    assert named(REDIS_URL="redis://redis.example.com") == ("REDIS_URL",)
    assert named(REDIS_URL="redis://redis.example.com", BROKER_URL="redis://redis.example.com") == ("REDIS_URL",)
    assert named(BROKER_URL="redis://user:secret@192.0.2.1:6379/0") == ("BROKER_URL",)
    assert named(BROKER_URL="rediss://redis.example.com") == ()


# --- REQUIRE_TLS ---------------------------------------------------------------------------------


def refused(**environ: str) -> list[str]:
    """Return what REQUIRE_TLS refuses, with servers on this machine where none is given."""
    required = {"DATABASE_URL": HERE, "REDIS_URL": "redis://127.0.0.1", "REQUIRE_TLS": "true"}
    try:
        Settings.from_environ({**required, **environ})
    except ConfigurationError as error:
        return [fault.partition(": ")[0] for fault in error.faults]
    return []


@pytest.mark.parametrize(
    "url",
    [
        HERE,
        "postgresql://bridge@localhost/app?sslmode=disable",
        "postgresql://bridge@[::1]:5432/app",
        "postgresql://bridge@/app?host=/run/postgresql",
        "host=db.example.com hostaddr=127.0.0.1 dbname=app",
        "postgresql://bridge@db.example.com/app?sslmode=verify-full",
        "postgresql://bridge@db.example.com/app?sslmode=verify-full&sslrootcert=system",
        "postgresql://bridge@one.example.com,two.example.com/app?sslmode=verify-full",
        "host=10.0.0.1 sslmode=verify-full dbname=app",
        "service=app sslmode=verify-full",
    ],
)
def test_a_postgresql_that_may_be_used_where_tls_is_required(url: str) -> None:
    """A unix socket, this machine, and what libpq connects to with verified TLS or not at all."""
    assert refused(DATABASE_URL=url) == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://bridge@db.example.com/app",
        "postgresql://bridge@db.example.com/app?sslmode=prefer",
        "postgresql://bridge@db.example.com/app?sslmode=require",
        "postgresql://bridge@db.example.com/app?sslmode=require&sslrootcert=/ca.pem",
        "postgresql://bridge@db.example.com/app?sslmode=verify-ca",
        "postgresql://bridge@db.example.com/app?sslrootcert=system",
        "postgresql://bridge@10.0.0.1/app",
        "postgresql://bridge@[2001:db8::1]/app",
        "postgresql://bridge@localhost,db.example.com/app",
        "host=localhost hostaddr=192.0.2.1 dbname=app",
        "host=localhost,db.example.com hostaddr=127.0.0.1, dbname=app",
        "service=app",
        "service=app host=localhost",
    ],
)
def test_a_postgresql_that_is_refused_where_tls_is_required(url: str) -> None:
    """All else is refused: plaintext, unverified TLS, and what only a file or a newer libpq knows to be verified."""
    assert refused(DATABASE_URL=url) == ["DATABASE_URL"]


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1",
        "redis://localhost:6379/0",
        "redis://[::1]:6379/0",
        "rediss://redis.example.com",
        "rediss://:secret@10.0.0.1:6379/0?ssl_ca_certs=/ca.pem",
        "rediss://redis.example.com?ssl_cert_reqs=required&ssl_check_hostname=true",
        "rediss://127.0.0.1?ssl_cert_reqs=none",
    ],
)
def test_a_redis_that_may_be_used_where_tls_is_required(url: str) -> None:
    """This machine, and what proves who it is."""
    assert refused(REDIS_URL=url) == []


@pytest.mark.parametrize(
    "url",
    [
        "redis://redis.example.com",
        "redis://10.0.0.1:6379/0",
        "rediss://redis.example.com?ssl_cert_reqs=none",
        "rediss://redis.example.com?ssl_check_hostname=false",
        "rediss://redis.example.com?ssl_check_hostname=No",
        "rediss://redis.example.com?ssl_check_hostname=0",
        "rediss://redis.example.com?ssl%5Fcert%5Freqs=none",
        "redis://redis.example.com?host=127.0.0.1",
    ],
)
def test_a_redis_that_is_refused_where_tls_is_required(url: str) -> None:
    """Plaintext elsewhere, and TLS with its verification switched off, however that is written."""
    assert refused(REDIS_URL=url) == ["REDIS_URL"]


def test_the_variable_that_is_set_is_named() -> None:
    """A fault names what to change: BROKER_URL if it is another URL, and DATABASE_URL's old name."""
    elsewhere = "redis://redis.example.com"
    assert refused(BROKER_URL=elsewhere) == ["BROKER_URL"]
    assert refused(REDIS_URL=elsewhere, BROKER_URL=elsewhere) == ["REDIS_URL"]
    assert refused(REDIS_URL="rediss://redis.example.com", BROKER_URL="rediss://other.example.com") == []
    old = "postgresql://bridge@db.example.com/app"
    assert refused(DATABASE_URL="", POSTGRES_CONNECTION_STRING=old) == ["POSTGRES_CONNECTION_STRING"]


def test_a_model_elsewhere_needs_tls() -> None:
    """A model in a private network is told of as plaintext, and REQUIRE_TLS refuses it; one on this machine is not."""
    assert named(OPENAI_BASE_URL="http://10.0.0.1:8000/v1") == ("OPENAI_BASE_URL",)
    assert refused(OPENAI_BASE_URL="http://10.0.0.1:8000/v1") == ["OPENAI_BASE_URL"]
    for url in ("http://127.0.0.1:11434/v1", "http://localhost:11434/v1", "https://models.example.com/v1"):
        assert named(OPENAI_BASE_URL=url) == ()
        assert refused(OPENAI_BASE_URL=url) == []


def test_other_faults_are_told_beside_it() -> None:
    """A URL that is wrong is told as such, and does not hide that another one is not encrypted."""
    environ = {"DATABASE_URL": "mysql://x", "REDIS_URL": "redis://redis.example.com", "REQUIRE_TLS": "true"}
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environ(environ)
    first, second = caught.value.faults
    assert first.startswith("DATABASE_URL: must begin with ")
    assert second.startswith("REDIS_URL: leads to another machine ")


def test_nothing_is_required_by_default() -> None:
    """Without REQUIRE_TLS, or with false, plaintext elsewhere is told of and not refused."""
    for value in ("", "false"):
        assert named(REDIS_URL="redis://redis.example.com", REQUIRE_TLS=value) == ("REDIS_URL",)


# --- HOST ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["", "127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_pages_for_this_machine(host: str) -> None:
    """On loopback nobody else sees the pages, with or without a token."""
    assert not open_on(HOST=host)
    assert not open_on(HOST=host, CONSOLE_TOKEN=TOKEN)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "192.0.2.1", "bridge.internal", "localhost.example.com"])  # noqa: S104
def test_pages_for_everybody(host: str) -> None:
    """Elsewhere everybody does who reaches it, unless a token is set."""
    assert open_on(HOST=host)
    assert not open_on(HOST=host, CONSOLE_TOKEN=TOKEN)


def open_on(**environ: str) -> bool:
    """Tell whether the pages are open to other machines."""
    return is_open(Settings.from_environ({"DATABASE_URL": HERE, "REDIS_URL": "redis://127.0.0.1", **environ}))
