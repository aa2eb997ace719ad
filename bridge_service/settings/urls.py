"""URLs: taken apart and refused here, before a library can quote a password in an error."""

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

import psycopg2.extensions
import redis
from pydantic_core import PydanticCustomError

_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_PORTS: Final = range(1, 65536)
_PRIVATE: Final = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))


def refused(why: str) -> PydanticCustomError:
    """Make the error that refuses a field's value; `why` never holds the value."""
    return PydanticCustomError("refused", "{why}", {"why": why})


def host(text: str) -> str:
    """Take a host name or an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if not re.fullmatch(r"[\w.-]{1,253}", text):
            raise
    return text


def database_url(text: str) -> str:
    """Take a URL or a DSN of libpq that names a host."""
    if text.startswith(("postgresql://", "postgres://")) or "://" in text.partition("=")[0]:
        _split(text, "postgresql", "postgres")
    try:
        parts = psycopg2.extensions.parse_dsn(text)
    except (psycopg2.Error, UnicodeError, ValueError):
        raise refused(
            "is not understood by libpq: write postgresql://USER:PASSWORD@HOST:5432/NAME,"
            " and after a ? only parameters that libpq knows"
        ) from None
    if not (parts.keys() & {"host", "hostaddr", "service"}):
        raise refused("names no host: add one, or ?host=/the/directory of the unix socket")
    # libpq takes several hosts and ports, with commas; an empty one is its default, a path is a unix socket.
    for name in f"{parts.get('host', '')},{parts.get('hostaddr', '')}".split(","):
        if name and not name.startswith("/"):
            _check_host(name)
    for port in filter(None, parts.get("port", "").split(",")):
        _check_port(port)
    if parts.get("sslmode", "prefer") not in _SSL_MODES:
        raise refused(f"has an unknown sslmode: write one of {', '.join(_SSL_MODES)}")
    return text


def redis_url(text: str) -> str:
    """Take a URL that redis-py reads as its writer meant it."""
    if text.startswith("unix://"):
        raise refused("cannot be a unix:// socket: let Redis listen on a port and write redis://127.0.0.1:6379/0")
    parts = _split(text, "redis", "rediss")
    _check_place(parts)
    if not re.fullmatch(r"/?|/[0-9]+", parts.path):
        # redis-py would silently take database 0.
        raise refused("has a path that is no database: after the host comes at most / and the database's number")
    try:
        # Builds the connection, which checks every parameter after the ?, and does not open it.
        redis.ConnectionPool.from_url(text).make_connection()
    except Exception:  # noqa: BLE001 - any text of redis-py may quote the URL, so none of it may pass
        raise refused("has a parameter after the ? that redis-py does not take: correct it or take it out") from None
    return text


def broker_url(text: str) -> str:
    """Take a Redis URL; the line for RabbitMQ says what to write instead."""
    if text.startswith(("amqp://", "amqps://")):
        raise refused("RabbitMQ is not part of this version: use redis:// or rediss://, or leave BROKER_URL unset")
    return redis_url(text)


def model_url(text: str) -> str:
    """Take the URL of a model's server; what people write travels in plaintext over private networks at most."""
    parts = _split(text, "https", "http")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise refused("holds more than scheme, host, port and path: a key belongs into OPENAI_API_KEY")
    _check_place(parts)
    if parts.scheme == "http" and not _is_private(parts.hostname or ""):
        raise refused("leads through a public network: write https://, or a loopback or private address as it is")
    return text


def _is_private(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False  # where a name leads may change
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or any(address.version == each.version and address in each for each in _PRIVATE)


def _split(text: str, *schemes: str) -> SplitResult:
    """Take a URL apart.

    libpq, redis-py and urllib cut a URL with an unescaped `@`, `/`, `?` or `#` at different places and then
    complain about a "host" or a "port" that is part of the password.
    """
    if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        beginnings = " or ".join(f"{scheme}://" for scheme in schemes)
        raise refused(f"must begin with {beginnings}, without quotes around it")
    if not text.isprintable() or " " in text:
        raise refused("holds a space or an invisible character: take it out, or write a space as %20")
    if re.search(r"%(?!(?!00)[0-9A-Fa-f]{2})", text):
        raise refused("holds a % that begins no escape: write % as %25")
    try:
        unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise refused(
            "holds an escape that is not UTF-8: write each character as the escapes of its UTF-8 bytes"
        ) from None
    authority, *rest = re.split(r"[/?]", text.partition("://")[2], maxsplit=1)
    if "#" in text or authority.count("@") > 1 or "@" in "".join(rest):
        raise refused("holds an @, /, ? or # of the user or the password as it is: write %40, %2F, %3F or %23")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise refused(
            "has a host that is not understood: write an IPv6 address in [ ], a [ of the password as %5B"
        ) from None
    if parts.query and not all("=" in pair for pair in parts.query.split("&")):
        # redis-py would silently drop it.
        raise refused("has a parameter without a value: after the ? comes NAME=VALUE, several joined by &")
    return parts


def _check_place(parts: SplitResult) -> None:
    _check_host(unquote(parts.hostname or ""))
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port is not None:
        _check_port(str(port))


def _check_host(name: str) -> None:
    try:
        host(name)
    except ValueError:
        raise refused(
            "has no host, or one that is not understood: after the @ (or the ://) comes HOST or HOST:PORT"
        ) from None


def _check_port(port: str) -> None:
    if not (re.fullmatch("[0-9]{1,5}", port) and int(port) in _PORTS):
        raise refused(
            "has a port that is not a whole number from 1 to 65535: correct it, or write a / of the password as %2F"
        )
