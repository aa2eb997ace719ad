"""The looks at Redis, or at a server that speaks its protocol."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import redis
import redis.exceptions
from dramatiq.errors import ConnectionClosed

from bridge_service.brokers.broker import WaitingBroker
from bridge_service.brokers.messages import QUEUE_NAME
from bridge_service.brokers.redis_client import describe as in_short
from bridge_service.brokers.redis_client import redis_call
from bridge_service.checks import standing
from bridge_service.checks.finding import Finding, Found, attempt, encryption, judge, well, wrong
from bridge_service.checks.remedies import redis_remedy
from bridge_service.settings import verifies

OLDEST_VERSION: Final = (6, 2)
FULL_AT: Final = 0.9
"""Share of maxmemory above which the look fails."""

Info = dict[str, Any]

_STAND_IN: Final = "check"
"""An ID that no installation has."""

# redis-py raises the last four on a reply that is not of its protocol.
_FROM_REDIS: Final = (redis.RedisError, OSError, LookupError, AttributeError, TypeError, ValueError)

_BELL_SECONDS: Final = 0.05


def check_redis(
    url: str, name: str, variable: str, *, describe: Callable[[BaseException], str], queue_id: str | None = None
) -> Iterator[Finding]:
    """Run one look after the other; only the first if Redis does not answer.

    Parameters:
      name: that the findings' names begin with.
      variable: the environment variable that holds the URL.
      describe: says what went wrong, without a secret.
      queue_id: the ID in the names of the queue's keys; None if PostgreSQL does not tell it.
    """

    def told(error: BaseException) -> str:
        return describe(redis.RedisError(in_short(error)))

    def look(what: str, find: Callable[[], Found]) -> Finding:
        # In a cluster the node that the URL names may answer PING while another node does not answer.
        stuck = f"{variable}: is Redis stuck, and is it Redis? Each address in CLUSTER SLOTS must be in reach"
        return attempt(f"{name}_{what}", find, stuck, told, _FROM_REDIS)

    with closing(
        WaitingBroker(url, emit=lambda _: None, middleware=[], queue_id=lambda: queue_id or _STAND_IN)
    ) as broker:
        client = broker.client
        try:
            client.ping()
        except _FROM_REDIS as error:
            detail = f"{standing.word_for_redis(error)}: {told(error)}"
            yield Finding(name, ok=False, detail=detail, remedy=f"{variable}: {redis_remedy(error, url)}")
            return
        yield Finding(name, ok=True, detail="answers PING")
        yield look("encryption", lambda: _encrypted(url, variable))
        yield look("scripting", lambda: _scripting(broker, told, known=queue_id is not None))
        info: Info = {}
        asked = look("info", lambda: _info(client, info))
    if not info:
        yield asked
        return
    yield look("version", lambda: _version(info))
    yield look("writable", lambda: _writable(info, variable))
    yield look("eviction", lambda: _eviction(info))
    yield look("memory", lambda: _memory(info))
    yield look("persistence", lambda: _persistence(info))


def _encrypted(url: str, variable: str) -> Found:
    parts = urlsplit(url)
    encrypted = parts.scheme == "rediss"
    remedy = "write rediss:// and leave its verification on"
    if encrypted:
        remedy = (
            "anyone in between can read and answer; write ssl_ca_certs=/path/to/the/authority.pem in place"
            " of ssl_cert_reqs and ssl_check_hostname, if the provider gives it"
        )
    host = unquote(parts.hostname or "")
    return encryption(host, encrypted=encrypted, verified=verifies(url), remedy=f"{variable}: {remedy}")


def _scripting(broker: WaitingBroker, describe: Callable[[BaseException], str], *, known: bool) -> Found:
    """Run what the broker runs, on its keys: each script without a message, and a BLPOP that gets nothing."""
    try:
        broker.probe()
        broker.fetch(QUEUE_NAME, 0)
        redis_call(lambda: broker.client.blpop([f"{broker.key(QUEUE_NAME)}.check"], _BELL_SECONDS))
    except ConnectionClosed as closed:
        [error] = closed.args
        if not isinstance(error, redis.ResponseError):
            raise error from None
        return wrong(describe(error), _for_script(error))
    return well("scripts run" if known else f"scripts run, on keys of the ID `{_STAND_IN}`")


def _for_script(error: Exception) -> str:
    if isinstance(error, redis.exceptions.ClusterError | redis.exceptions.AskError):
        return "the cluster does not serve this slot now: look at CLUSTER INFO and CLUSTER SLOTS"
    return "allow EVALSHA, SCRIPT LOAD and BLPOP on the keys dramatiq:* (docs/SECURITY.md has the whole ACL SETUSER)"


def _info(client: redis.Redis, info: Info) -> Found:
    """Fill `info`; it stays empty if this user may not ask."""
    try:
        info.update(client.info())
    except redis.ResponseError:
        advice = "allow INFO to this user, to have version, memory and persistence checked"
        return well("this user may not ask with INFO", advice)
    return Found(bool(info), "answers INFO")


def _version(info: Info) -> Found:
    text = str(info.get("redis_version", ""))
    number = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    product = str(info.get("server_name", "redis")).capitalize()
    own = info.get(f"{product.lower()}_version")
    detail = f"{product} {own}, compatible with Redis {text}" if own and own != text else f"Redis {text or 'unknown'}"
    return judge(detail, "upgrade Redis to 6.2 or newer", ok=number >= OLDEST_VERSION)


def _writable(info: Info, variable: str) -> Found:
    if info.get("role") == "slave" and info.get("slave_read_only", 1):
        return wrong("a replica, which takes no writes", f"{variable}: name the primary")
    return well("takes writes")


def _eviction(info: Info) -> Found:
    policy = str(info.get("maxmemory_policy", "unknown"))
    remedy = "CONFIG SET maxmemory-policy noeviction: an evicted push waits until it is believed lost"
    return judge(f"maxmemory-policy {policy}", remedy, ok=not policy.startswith("allkeys-"))


def _memory(info: Info) -> Found:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not limit:
        return well("no maxmemory")
    remedy = "raise maxmemory, or find what fills it with MEMORY STATS"
    return judge(f"{used / limit:.0%} of maxmemory in use", remedy, ok=used < FULL_AT * limit)


def _persistence(info: Info) -> Found:
    if info.get("aof_enabled"):
        return well("append-only file")
    advice = "CONFIG SET appendonly yes: without it a restart loses no message, but pushes have to be made again"
    return well("no append-only file", advice)
