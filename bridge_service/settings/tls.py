"""Which connections stay on this machine or are encrypted, judged by their URLs without a DNS lookup."""

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
    """Yield the hosts that libpq connects to; a hostaddr counts more than its host."""
    hosts, addresses = (dsn.get(key, "").split(",") for key in ("host", "hostaddr"))
    for name, address in zip_longest(hosts, addresses, fillvalue=""):
        yield address or name


def verifies(redis_url: str) -> bool:
    """Tell whether the Redis of this URL has to prove its identity by TLS."""
    # redis-py knows all spellings of a parameter. Its check_hostname is also False if it verifies no certificate.
    return bool(getattr(redis.ConnectionPool.from_url(redis_url).make_connection(), "check_hostname", False))


def without_tls(database_url: str, redis_url: str, broker_url: str, model_url: str) -> Iterator[tuple[str, str]]:
    """Yield the fields that REQUIRE_TLS refuses, and what to write there. A URL that is not known is ''."""
    leads = "leads to another machine without TLS that is verified, which REQUIRE_TLS refuses:"
    if database_url:
        dsn = psycopg2.extensions.parse_dsn(database_url)
        # A service of pg_service.conf may lead anywhere. The URL's sslmode counts more than the service's.
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
    """Yield the fields and URLs that are set; redis_url alone if both are the same."""
    if broker_url and broker_url != redis_url:
        yield "broker_url", broker_url
    if redis_url:
        yield "redis_url", redis_url
