"""Which settings may be shown and which may not: the line at the start, the pages, the log's filter."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Final
from urllib.parse import unquote, unquote_plus, urlsplit

import psycopg2.extensions

from bridge_service.settings.fields import Settings
from bridge_service.settings.tls import dsn_hosts, is_here, is_plain, redis_urls
from bridge_service.settings.words import as_text

_ENCRYPTED_MODES: Final = ("require", "verify-ca", "verify-full")


def summary(settings: Settings) -> dict[str, str]:
    """Return what is not secret and set, by variable name: numbers as %g, booleans as true or false."""
    tunables = {each.name.upper(): getattr(settings, each.name) for each in fields(settings) if each.repr}
    return {name: as_text(value) for name, value in tunables.items() if value is not None}


def secrets(settings: Settings) -> tuple[str, ...]:
    """Return token, key and the passwords of all URLs, decoded and as written, longest first, for the log's filter."""
    found = {settings.console_token or "", settings.openai_api_key or "", *_dsn_passwords(settings.database_url)}
    for url in (settings.database_url, settings.redis_url, settings.broker_url):
        found.update(_url_passwords(url))
    return tuple(sorted(found - {""}, key=lambda secret: (-len(secret), secret)))


def plaintext(settings: Settings) -> tuple[str, ...]:
    """Return the variables whose connection leaves this machine and is not, or need not be, encrypted.

    Looks no name up, so a private network counts as leaving, too.
    """
    found = []
    dsn = psycopg2.extensions.parse_dsn(settings.database_url)
    # With sslrootcert=system libpq always verifies.
    mode = dsn.get("sslmode", "verify-full" if dsn.get("sslrootcert") == "system" else "prefer")
    if mode not in _ENCRYPTED_MODES and not all(map(is_here, dsn_hosts(dsn))):
        found.append("DATABASE_URL")
    for name, url in redis_urls(settings.redis_url, settings.broker_url):
        parts = urlsplit(url)
        if parts.scheme == "redis" and not is_here(unquote(parts.hostname or "")):
            found.append(name.upper())
    if is_plain(settings.openai_base_url or ""):
        found.append("OPENAI_BASE_URL")
    return tuple(found)


def is_open(settings: Settings) -> bool:
    """Tell whether the server on HOST answers other machines without a token."""
    return settings.console_token is None and not is_here(settings.host)


def _url_passwords(url: str) -> Iterator[str]:
    """Yield the passwords of a URL, as written and decoded."""
    parts = urlsplit(url)
    yield parts.password or ""
    yield unquote(parts.password or "")
    for pair in parts.query.split("&"):
        key, _, value = pair.partition("=")
        if key.endswith("password"):  # password, sslpassword, ssl_password
            # redis-py reads a + as a space, libpq does not.
            yield from (value, unquote(value), unquote_plus(value))


def _dsn_passwords(dsn: str) -> Iterator[str]:
    """Yield the passwords of a DSN, decoded and as a key=value DSN escapes them."""
    parts = psycopg2.extensions.parse_dsn(dsn)
    for key in ("password", "sslpassword"):
        password = parts.get(key, "")
        yield password
        yield password.replace("\\", "\\\\").replace("'", "\\'")
