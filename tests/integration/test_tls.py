"""Encrypted connections to a real PostgreSQL and a real Redis: what has to work, and what has to be refused."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import sys
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

import pytest
import redis
from dramatiq.errors import ConnectionClosed
from psycopg2 import sql

from bridge_service.brokers.redis_client import connect, redis_call
from bridge_service.checks.postgresql import check_postgresql
from bridge_service.checks.redis import check_redis
from bridge_service.demo.binaries import postgresql_folders
from bridge_service.demo.servers import PostgresServer
from bridge_service.errors import EX_CONFIG, DatabaseUnavailable
from bridge_service.install.plan import migrate
from bridge_service.machine.database import Connection
from tests.conftest import QUICK as NO_DISK
from tests.support.app import App, Client
from tests.support.databases import copy_of, make_template
from tests.support.front import Front
from tests.support.roles import ADMIN, APP, OWNER, SERVICE
from tests.support.service import QUICK, Service

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from pathlib import Path

    from bridge_service.checks.finding import Finding
    from bridge_service.demo.servers import RedisServer
    from tests.support.roles import Urls

OPENSSL: Final = shutil.which("openssl")
HOST: Final = "localhost"
ROLE: Final = 'tls "rôle"@:/'
PASSWORD: Final = "p@ss/w:rd?#&=+%25 é'\"\\[]"
"""Everything that means something in a URL, and an escape that is none."""

HBA: Final = f"""
host      all  {ADMIN},{OWNER},{APP},{SERVICE}  127.0.0.1/32  trust
hostssl   all  all       127.0.0.1/32  scram-sha-256
hostnossl all  all       127.0.0.1/32  reject
"""


pytestmark = pytest.mark.skipif(OPENSSL is None, reason="no openssl on this machine, to make certificates with")


# --- Certificates --------------------------------------------------------------------------------


_NEW_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Certificate(NamedTuple):
    """A server's certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority of our own, made with openssl, as strictly as Python 3.13 and newer look at it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        folder.chmod(0o711)
        self._folder = folder
        rights = "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"
        self.root = self._self_signed("ca", "CN=The tests' authority", *rights).certificate
        self.good = self._signed("good", HOST)
        self.wrong_host = self._signed("wrong_host", "elsewhere.example")
        self.expired = self._signed("expired", HOST, days=0)  # newer openssl takes no -1
        self.self_signed = self._self_signed("self_signed", f"CN={HOST}", f"subjectAltName=DNS:{HOST}")

    def _self_signed(self, name: str, subject: str, *extensions: str) -> Certificate:
        made = self._paths(name)
        added = (word for extension in extensions for word in ("-addext", extension))
        options = ("-days", "2", "-subj", f"/{subject}", *added)
        _openssl("req", "-x509", *_NEW_KEY, "-keyout", made.key, "-out", made.certificate, *options)
        return made

    def _signed(self, name: str, host: str, days: int = 2) -> Certificate:
        made = self._paths(name)
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName=DNS:{host}\nauthorityKeyIdentifier=keyid\n")
        _openssl("req", *_NEW_KEY, "-keyout", made.key, "-out", request, "-subj", f"/CN={host}")
        signer = ("-CA", self.root, "-CAkey", self._paths("ca").key, "-days", str(days), "-extfile", extensions)
        _openssl("x509", "-req", "-in", request, *signer, "-out", made.certificate)
        return made

    def _paths(self, name: str) -> Certificate:
        return Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")


def _openssl(*arguments: str | Path) -> None:
    assert OPENSSL is not None
    subprocess.run((OPENSSL, *arguments), check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(servers_folder: Path) -> Authority:
    """Give the authority, with a certificate of each kind."""
    return Authority(servers_folder / "certificates")


REFUSED: Final = ("wrong_host", "self_signed", "expired")
WHY: Final = {
    "wrong_host": "does not match host name|Hostname mismatch",
    # libpq does not say more.
    "self_signed": "self-signed certificate|SSL error: certificate verify failed",
    "expired": "certificate has expired|SSL error: certificate verify failed",
}


# --- Who stands in between -----------------------------------------------------------------------


class TlsFront(Front):
    """A front with TLS of its own, or one that takes TLS away.

    Parameters:
      behind: the server's port.
      certificate: TLS ends here, with this certificate. Without one the front says 'N' to PostgreSQL's question whether
        there is TLS, as an attacker would, and hands on the rest as it is.
    """

    def __init__(self, behind: int, certificate: Certificate | None = None) -> None:
        context = None
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*certificate)
        super().__init__(behind, context)

    async def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Take TLS away, if there is no certificate."""
        if self._context is None:
            await reader.readexactly(8)
            writer.write(b"N")
        return b""


# --- PostgreSQL ----------------------------------------------------------------------------------


class TlsPostgres(PostgresServer):
    """A PostgreSQL with TLS: the superuser comes without a password and as he likes, others must have both."""

    def present(self, certificate: Certificate) -> None:
        """Start, or start again, with this certificate."""
        self.directory.mkdir(exist_ok=True)
        hba = self.directory / "hba.conf"
        hba.write_text(HBA)
        self._give(certificate.key)
        settings = {
            "ssl": "on",
            "ssl_cert_file": str(certificate.certificate),
            "ssl_key_file": str(certificate.key),
            "hba_file": str(hba),
        }
        if not settings.items() <= self.settings.items():
            self.settings.update(settings)
            self.restart()

    @cached_property
    def _binaries(self) -> Path:
        return next(filter(_has_tls, postgresql_folders()))

    def tls_url(self, name: str, **parameters: object) -> str:
        """Return the URL for the role with the password, by the name of this machine."""
        query = "&".join(f"{key}={value}" for key, value in parameters.items())
        return f"postgresql://{quote(ROLE, safe='')}:{quote(PASSWORD, safe='')}@{HOST}:{self.port}/{name}?{query}"


def _has_tls(folder: Path) -> bool:
    program = folder / "pg_config"
    if not program.exists():
        return False
    made = subprocess.run((program, "--configure"), check=False, capture_output=True, text=True).stdout
    return "--with-openssl" in made or "--with-ssl=openssl" in made


@pytest.fixture(scope="module")
def tls_postgres(servers_folder: Path) -> Iterator[TlsPostgres]:
    """Give a PostgreSQL with TLS, not started yet."""
    if not any(map(_has_tls, postgresql_folders())):
        pytest.skip("no PostgreSQL with TLS on this machine: .ci/packages installs one as root on Debian")
    server = TlsPostgres(servers_folder / "tls_postgres", NO_DISK)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def tls_template(tls_postgres: TlsPostgres, authority: Authority) -> str:
    """Give the name of a template with the app, the bridge, and the role as its run-time role."""
    tls_postgres.present(authority.good)
    urls = make_template(tls_postgres, "tls_template")
    with closing(Client(urls.admin)) as admin:
        role, password = sql.Identifier(ROLE), sql.Literal(PASSWORD)
        admin.rows(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, password).as_string(admin.connection))
    migrate(urls.owner, runtime_role=ROLE)
    return "tls_template"


@pytest.fixture
def tls_database(tls_postgres: TlsPostgres, tls_template: str) -> Iterator[Urls]:
    """Give a fresh database with the bridge, on a PostgreSQL with TLS."""
    with copy_of(tls_postgres, tls_template) as urls:
        yield urls


def is_encrypted(url: str) -> bool:
    """Connect as the service does, and tell whether PostgreSQL sees TLS."""
    with closing(Connection(url, application="test")) as connection:
        [[encrypted]] = connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        return bool(encrypted)


def assert_refused(url: str, why: str) -> None:
    """Check that connecting as the service does fails, for this reason, without the password in the reason."""
    with pytest.raises(DatabaseUnavailable, match=why) as refusal:
        Connection(url, application="test")
    assert PASSWORD not in str(refusal.value)
    assert quote(PASSWORD, safe="") not in str(refusal.value)


def test_postgresql_is_verified(tls_postgres: TlsPostgres, tls_template: str, authority: Authority) -> None:
    """With the right authority the connection is encrypted; with another one, or none to be found, it is refused."""
    tls_postgres.present(authority.good)

    assert is_encrypted(tls_postgres.tls_url(tls_template, sslmode="verify-full", sslrootcert=authority.root))
    other = authority.self_signed.certificate
    assert_refused(tls_postgres.tls_url(tls_template, sslmode="verify-full", sslrootcert=other), "verify failed")
    assert_refused(tls_postgres.tls_url(tls_template, sslmode="verify-full", sslrootcert="/nowhere"), "does not exist")


def test_the_systems_authorities(
    tls_postgres: TlsPostgres, tls_template: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sslrootcert=system` finds them where SSL_CERT_FILE says; psycopg2's wheel knows no other place."""
    tls_postgres.present(authority.good)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.root))

    assert is_encrypted(tls_postgres.tls_url(tls_template, sslrootcert="system"))


@pytest.mark.parametrize("kind", REFUSED)
def test_postgresql_with_a_bad_certificate(
    tls_postgres: TlsPostgres, tls_template: str, authority: Authority, kind: str
) -> None:
    """A certificate for another name, of an unknown authority or expired is refused, under verify-full alone."""
    tls_postgres.present(getattr(authority, kind))

    verified = tls_postgres.tls_url(tls_template, sslmode="verify-full", sslrootcert=authority.root)
    assert_refused(verified, WHY[kind])
    assert is_encrypted(tls_postgres.tls_url(tls_template, sslmode="require"))


def test_postgresql_takes_no_plaintext(tls_postgres: TlsPostgres, tls_template: str, authority: Authority) -> None:
    """What is sent to a PostgreSQL that wants TLS is not sent without it."""
    tls_postgres.present(authority.good)

    assert_refused(tls_postgres.tls_url(tls_template, sslmode="disable"), "no encryption")


def test_a_downgrade_is_refused(tls_postgres: TlsPostgres, tls_template: str, authority: Authority) -> None:
    """Who answers that there is no TLS, and would read along, gets nothing under verify-full nor under require."""
    tls_postgres.present(authority.good)
    with TlsFront(tls_postgres.port) as attacker:
        url = tls_postgres.tls_url(tls_template).replace(f":{tls_postgres.port}/", f":{attacker.port}/")
        assert_refused(f"{url}sslmode=verify-full&sslrootcert={authority.root}", "does not support SSL")
        assert_refused(f"{url}sslmode=require", "does not support SSL")
        # Without either, libpq goes on unencrypted: the attack is real.
        assert not is_encrypted(f"postgresql://{SERVICE}@{HOST}:{attacker.port}/{tls_template}?sslmode=prefer")


# --- Redis ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis_user(redis_server: RedisServer) -> Iterator[str]:
    """Make a user with the name and the password, and give both as they stand in a URL."""
    with closing(redis.Redis.from_url(redis_server.url())) as admin:
        name = ROLE.replace(" ", "_")  # a space is none that Redis allows
        admin.execute_command("ACL", "SETUSER", name, "on", f">{PASSWORD}", "~*", "&*", "+@all")  # type: ignore[no-untyped-call]
        yield f"{quote(name, safe='')}:{quote(PASSWORD, safe='')}"
        admin.execute_command("ACL", "DELUSER", name)  # type: ignore[no-untyped-call]


def ping(url: str) -> None:
    """Ask Redis as the service does."""
    with closing(connect(url)) as client:
        redis_call(client.ping)


def assert_no_redis(url: str, why: str) -> None:
    """Check that asking fails, for this reason, without the password in the reason."""
    with pytest.raises(ConnectionClosed) as refusal:
        ping(url)
    assert re.search(why, str(refusal.value))
    assert PASSWORD not in str(refusal.value)
    assert quote(PASSWORD, safe="") not in str(refusal.value)


def test_redis_is_verified(redis_server: RedisServer, redis_user: str, authority: Authority) -> None:
    """With the right authority Redis answers; without it, or without TLS, nothing is asked."""
    with TlsFront(redis_server.port, authority.good) as front:
        address = f"{redis_user}@{HOST}:{front.port}/0"
        ping(f"rediss://{address}?ssl_ca_certs={authority.root}")
        assert_no_redis(f"rediss://{address}", "certificate verify failed")
        assert_no_redis(f"redis://{address}", "reset|closed|EOF")


@pytest.mark.parametrize("kind", REFUSED)
def test_redis_with_a_bad_certificate(
    redis_server: RedisServer, redis_user: str, authority: Authority, kind: str
) -> None:
    """A certificate for another name, of an unknown authority or expired is refused, unless the URL gives that up."""
    with TlsFront(redis_server.port, getattr(authority, kind)) as front:
        url = f"rediss://{redis_user}@{HOST}:{front.port}/0?ssl_ca_certs={authority.root}"
        assert_no_redis(url, WHY[kind])
        ping(f"{url}&ssl_cert_reqs=none&ssl_check_hostname=false")


# --- What `check` says ---------------------------------------------------------------------------


def redis_finding(url: str) -> Finding:
    """Return what `check` says first of a Redis."""
    return next(check_redis(url, "redis", "REDIS_URL", describe=str))


PLAINTEXT: Final = re.compile(r"redis://|plaintext")


@pytest.mark.parametrize("kind", ["self_signed", "good"])
def test_check_knows_a_certificate_of_an_unknown_authority(
    redis_server: RedisServer, redis_user: str, authority: Authority, kind: str
) -> None:
    """Where the authority is unknown, as at Heroku's, `check` names two remedies and no plaintext; both work."""
    root = authority.self_signed.certificate if kind == "self_signed" else authority.root
    with TlsFront(redis_server.port, getattr(authority, kind)) as front:
        url = f"rediss://{redis_user}@{HOST}:{front.port}/0"
        for asked, joint in ((url, "?"), (f"{url}?socket_timeout=2", "&")):
            finding = redis_finding(asked)
            assert not finding.ok
            assert not PLAINTEXT.search(finding.remedy)
            assert "anyone in between can read and answer" in finding.remedy
            for option, value in (("ssl_cert_reqs", "none"), ("ssl_ca_certs", str(root))):
                assert f"{joint}{option}=" in finding.remedy
                assert redis_finding(f"{asked}{joint}{option}={value}").ok
        unverified = list(check_redis(f"{url}?ssl_cert_reqs=none", "redis", "REDIS_URL", describe=str))
        assert all(finding.ok for finding in unverified)
        [encryption] = [finding for finding in unverified if finding.name == "redis_encryption"]
        assert "ssl_ca_certs" in encryption.remedy


def test_check_knows_what_else_is_wrong_with_a_certificate(
    redis_server: RedisServer, redis_user: str, authority: Authority
) -> None:
    """Another name, an expired certificate and a missing file have remedies of their own, and none is plaintext."""
    for kind, word, mended in (
        ("wrong_host", "another name", "ssl_check_hostname=false"),
        ("expired", "expired", "ssl_cert_reqs=none"),
    ):
        with TlsFront(redis_server.port, getattr(authority, kind)) as front:
            url = f"rediss://{redis_user}@{HOST}:{front.port}/0?ssl_ca_certs={authority.root}"
            finding = redis_finding(url)
            assert word in finding.remedy
            assert f"&{mended}" in finding.remedy
            assert not PLAINTEXT.search(finding.remedy)
            assert redis_finding(f"{url}&{mended}").ok
    with TlsFront(redis_server.port, authority.good) as front:
        url = f"rediss://{redis_user}@{HOST}:{front.port}/0?ssl_ca_certs="
        for file in ("/nowhere", str(authority.good.key)):
            assert "ssl_ca_certs" in redis_finding(f"{url}{file}").remedy
        plain = f"redis://{redis_user}@{HOST}:{front.port}/0"
        assert "is it rediss://" in redis_finding(plain).remedy
    assert "is it redis://" in redis_finding(f"rediss://{redis_user}@{HOST}:{redis_server.port}/0").remedy


def postgresql_finding(url: str) -> Finding:
    """Return what `check` says first of a PostgreSQL."""
    return next(check_postgresql(url, describe=str))


def test_check_knows_what_is_wrong_with_postgresqls_tls(
    tls_postgres: TlsPostgres, tls_template: str, authority: Authority
) -> None:
    """An unknown authority, another name, no TLS and too little of it: each remedy mends it, and none leads astray."""
    strict = {"sslmode": "verify-full", "sslrootcert": authority.root}
    tls_postgres.present(authority.good)
    good = tls_postgres.tls_url(tls_template, **strict)
    assert postgresql_finding(good).ok
    for other in (authority.self_signed.certificate, "/nowhere"):
        finding = postgresql_finding(tls_postgres.tls_url(tls_template, sslmode="verify-full", sslrootcert=other))
        assert not finding.ok
        assert "sslrootcert=/path" in finding.remedy
        assert "sslmode=require encrypts without verifying" in finding.remedy
        assert not PLAINTEXT.search(finding.remedy)
    assert postgresql_finding(tls_postgres.tls_url(tls_template, sslmode="require")).ok

    finding = postgresql_finding(tls_postgres.tls_url(tls_template, sslmode="disable"))
    assert "with TLS alone: write sslmode=verify-full" in finding.remedy

    with TlsFront(tls_postgres.port) as attacker:
        finding = postgresql_finding(good.replace(f":{tls_postgres.port}/", f":{attacker.port}/"))
        assert "what answers there has no TLS: is it the right host and port?" in finding.remedy
        assert "sslrootcert" not in finding.remedy

    tls_postgres.present(authority.wrong_host)
    finding = postgresql_finding(tls_postgres.tls_url(tls_template, **strict))
    assert "for another name" in finding.remedy
    mended = {"host": "elsewhere.example", "hostaddr": "127.0.0.1", "port": tls_postgres.port, **strict}
    assert postgresql_finding(tls_postgres.tls_url(tls_template, **mended)).ok
    assert postgresql_finding(tls_postgres.tls_url(tls_template, **{**strict, "sslmode": "verify-ca"})).ok

    tls_postgres.present(authority.expired)
    assert "has expired" in postgresql_finding(tls_postgres.tls_url(tls_template, **strict)).remedy
    wrong = tls_postgres.tls_url(tls_template, sslmode="require").replace(quote(PASSWORD, safe=""), "wrong")
    assert "its user and its password" in postgresql_finding(wrong).remedy


# --- All of it -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("redis_client")  # which empties Redis
def test_a_conversation_over_tls(
    tls_postgres: TlsPostgres, tls_database: Urls, redis_server: RedisServer, redis_user: str, authority: Authority
) -> None:
    """Scheduler and worker verify both servers, with passwords that mean something in a URL, and answer."""
    tls_postgres.present(authority.good)
    with TlsFront(redis_server.port, authority.good) as front:
        environment = {
            "DATABASE_URL": tls_postgres.tls_url(tls_database.name, sslmode="verify-full", sslrootcert=authority.root),
            "REDIS_URL": f"rediss://{redis_user}@{HOST}:{front.port}/0?ssl_ca_certs={authority.root}",
            **QUICK,
        }
        with Service(environment) as service, closing(App(tls_database)) as app:
            service.up()
            match = app.old_match()
            app.write(match, "chiffré")
            app.wait_for_replies(match, "chiffré")

            plain = "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE usename = %s AND NOT ssl"
            assert app.value(plain, ROLE) == 0
            assert service.stop() == [0, 0]
            assert not [line for line in service.lines() if "p@ss" in line.raw or quote("p@ss") in line.raw]


@pytest.mark.parametrize("role", ["scheduler", "worker", "console"])
def test_plaintext_is_refused_where_tls_is_required(role: str) -> None:
    """With REQUIRE_TLS each process ends with 78 and one line for each URL that leads elsewhere without TLS."""
    elsewhere = f"{quote('p@ss')}@192.0.2.1"
    environment = {
        **QUICK,
        "DATABASE_URL": f"postgresql://role:{elsewhere}/app?sslmode=require",
        "REDIS_URL": f"redis://:{elsewhere}",
        "REQUIRE_TLS": "true",
    }
    with Service(environment) as service:
        match role:
            case "scheduler":
                process = service.start_scheduler()
            case "worker":
                process = service.start_worker(processes=2)
            case _:
                process = service.start(role, (sys.executable, "-m", "bridge_service", role))

        assert process.wait() == EX_CONFIG
        told = [line.text.removeprefix("❌ Erreur fatale: ") for line in service.lines("REQUIRE_TLS")]
        assert [text.partition(": ")[0] for text in told] == ["DATABASE_URL", "REDIS_URL"]
        assert "sslmode=verify-full" in told[0]
        assert "rediss://" in told[1]
        assert not service.lines("p@ss|p%40ss|Traceback")


def test_plaintext_is_told_of() -> None:
    """Both processes say at their start which URLs lead elsewhere unencrypted, once each, without their passwords."""
    elsewhere = f"{quote('p@ss')}@192.0.2.1"  # an address that no machine has
    environment = {**QUICK, "DATABASE_URL": f"postgresql://role:{elsewhere}/app", "REDIS_URL": f"redis://:{elsewhere}"}
    with Service(environment) as service:
        for process in (service.start_scheduler(), service.start_worker()):
            told = service.wait_for_line("🔓", count=2, process=process)
            names = [line.text.partition(": connexion non chiffrée")[0] for line in told]
            assert names == ["🔓 DATABASE_URL", "🔓 REDIS_URL"]
        assert not service.lines("p@ss|p%40ss")
