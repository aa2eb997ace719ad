"""Which connections stay on this machine or are encrypted, by their URLs alone: no name is looked up."""

import ipaddress
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from urllib.parse import unquote, urlsplit

import psycopg2.extensions
import redis


def is_here(name: str) -> bool:
    """Tell whether a host is this machine."""
    if not name or name.startswith("/") or name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def dsn_hosts(dsn: Mapping[str, str]) -> Iterator[str]:
    """Yield where libpq connects to: of each pair the hostaddr, where there is one."""
    hosts, addresses = (dsn.get(key, "").split(",") for key in ("host", "hostaddr"))
    for name, address in zip_longest(hosts, addresses, fillvalue=""):
        yield address or name


def verifies(redis_url: str) -> bool:
    """Tell whether the Redis of this URL has to prove its identity by TLS."""
    # Asks redis-py, which knows many ways to write a parameter; False there also where certificates go unverified.
    return bool(getattr(redis.ConnectionPool.from_url(redis_url).make_connection(), "check_hostname", False))


def without_tls(database_url: str, redis_url: str, broker_url: str, model_url: str) -> Iterator[tuple[str, str]]:
    """Yield the fields that REQUIRE_TLS refuses, and what to write there. A URL that is not known is ''."""
    leads = "leads to another machine without TLS that is verified, which REQUIRE_TLS refuses:"
    if database_url:
        dsn = psycopg2.extensions.parse_dsn(database_url)
        # Where a service of pg_service.conf leads is not known; what it says of sslmode yields to the URL.
        here = "service" not in dsn and all(map(is_here, dsn_hosts(dsn)))
        if dsn.get("sslmode") != "verify-full" and not here:
            yield "database_url", f"{leads} add sslmode=verify-full and sslrootcert=/path/to/its/authorities.pem"
    for name, url in redis_urls(redis_url, broker_url):
        if not verifies(url) and not is_here(unquote(urlsplit(url).hostname or "")):
            yield name, f"{leads} write rediss://, without ssl_cert_reqs and ssl_check_hostname"
    if is_plain(model_url):
        yield "openai_base_url", f"{leads} write https://"


def is_plain(http_url: str) -> bool:
    """Tell whether an HTTP URL leads to another machine without encryption."""
    return http_url.startswith("http://") and not is_here(urlsplit(http_url).hostname or "")


def redis_urls(redis_url: str, broker_url: str) -> Iterator[tuple[str, str]]:
    """Yield what is known of broker_url and redis_url, and only the latter where they are the same."""
    if broker_url and broker_url != redis_url:
        yield "broker_url", broker_url
    if redis_url:
        yield "redis_url", redis_url
