"""What lets others read along: URLs without TLS, told of or, if it is required, refused; pages open to a network."""

import pytest

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
