"""What is looked at in Redis, or in what speaks its protocol."""

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
from bridge_service.checks.finding import Finding, attempt, encryption
from bridge_service.checks.remedies import redis_remedy
from bridge_service.settings import verifies

OLDEST_VERSION: Final = (6, 2)
FULL_AT: Final = 0.9
"""Share of maxmemory above which there is no headroom left."""

Info = dict[str, Any]

_STAND_IN: Final = "check"
"""An ID that no installation has."""

# The last four: redis-py stumbles over a garbled reply in its own code.
_FROM_REDIS: Final = (redis.RedisError, OSError, LookupError, AttributeError, TypeError, ValueError)

_BELL_SECONDS: Final = 0.05


def check_redis(
    url: str, name: str, variable: str, *, describe: Callable[[BaseException], str], queue_id: str | None = None
) -> Iterator[Finding]:
    """Look at one thing after the other; only at the first if there is no answer.

    Parameters:
      name: that the findings' names begin with.
      variable: the environment variable that holds the URL.
      describe: says what went wrong, without a secret.
      queue_id: the ID in the names of the queue's keys; None if PostgreSQL does not tell it.
    """

    def told(error: BaseException) -> str:
        return describe(redis.RedisError(in_short(error)))

    def look(what: str, find: Callable[[str], Finding]) -> Finding:
        # In a cluster the node that the URL names may answer PING, and name another one that does not answer.
        stuck = f"{variable}: is Redis stuck, and is it Redis? Each address in CLUSTER SLOTS must be in reach"
        return attempt(f"{name}_{what}", lambda: find(f"{name}_{what}"), stuck, told, _FROM_REDIS)

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
        yield look("encryption", lambda name: _encrypted(url, name, variable))
        yield look("scripting", lambda name: _scripting(broker, name, told, known=queue_id is not None))
        info: Info = {}
        asked = look("info", lambda name: _info(client, name, info))
    if not info:
        yield asked
        return
    yield look("version", lambda name: _version(info, name))
    yield look("writable", lambda name: _writable(info, name, variable))
    yield look("eviction", lambda name: _eviction(info, name))
    yield look("memory", lambda name: _memory(info, name))
    yield look("persistence", lambda name: _persistence(info, name))


def _encrypted(url: str, name: str, variable: str) -> Finding:
    parts = urlsplit(url)
    encrypted = parts.scheme == "rediss"
    remedy = f"{variable}: write rediss:// and leave its verification on"
    if encrypted:
        remedy = (
            f"{variable}: anyone in between can read and answer; write ssl_ca_certs=/path/to/the/authority.pem in place"
            " of ssl_cert_reqs and ssl_check_hostname, if the provider gives it"
        )
    return encryption(name, unquote(parts.hostname or ""), encrypted=encrypted, verified=verifies(url), remedy=remedy)


def _scripting(broker: WaitingBroker, name: str, describe: Callable[[BaseException], str], *, known: bool) -> Finding:
    """Run what the broker runs, with its very keys: each script without a message, and a wait for what never comes."""
    try:
        broker.probe()
        broker.fetch(QUEUE_NAME, 0)
        redis_call(lambda: broker.client.blpop([f"{broker.key(QUEUE_NAME)}.check"], _BELL_SECONDS))
    except ConnectionClosed as closed:
        [error] = closed.args
        if not isinstance(error, redis.ResponseError):
            raise error from None
        return Finding(name, ok=False, detail=describe(error), remedy=_for_script(error))
    return Finding(name, ok=True, detail="scripts run" if known else f"scripts run, on keys of the ID `{_STAND_IN}`")


def _for_script(error: Exception) -> str:
    if isinstance(error, redis.exceptions.ClusterError | redis.exceptions.AskError):
        return "the cluster does not serve this slot now: look at CLUSTER INFO and CLUSTER SLOTS"
    return "allow EVALSHA, SCRIPT LOAD and BLPOP on the keys dramatiq:* (docs/SECURITY.md has the whole ACL SETUSER)"


def _info(client: redis.Redis, name: str, info: Info) -> Finding:
    """Fill `info`; it stays empty where this user may not ask."""
    try:
        info.update(client.info())
    except redis.ResponseError:
        remedy = "allow INFO to this user, to have version, memory and persistence checked"
        return Finding(name, ok=True, detail="this user may not ask with INFO", remedy=remedy)
    return Finding(name, ok=bool(info), detail="answers INFO")


def _version(info: Info, name: str) -> Finding:
    text = str(info.get("redis_version", ""))
    number = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    ok = number >= OLDEST_VERSION
    product = str(info.get("server_name", "redis")).capitalize()
    own = info.get(f"{product.lower()}_version")
    detail = f"{product} {own}, compatible with Redis {text}" if own and own != text else f"Redis {text or 'unknown'}"
    return Finding(name, ok=ok, detail=detail, remedy="" if ok else "upgrade Redis to 6.2 or newer")


def _writable(info: Info, name: str, variable: str) -> Finding:
    if info.get("role") == "slave" and info.get("slave_read_only", 1):
        remedy = f"{variable}: name the primary"
        return Finding(name, ok=False, detail="a replica, which takes no writes", remedy=remedy)
    return Finding(name, ok=True, detail="takes writes")


def _eviction(info: Info, name: str) -> Finding:
    policy = str(info.get("maxmemory_policy", "unknown"))
    ok = not policy.startswith("allkeys-")
    remedy = "" if ok else "CONFIG SET maxmemory-policy noeviction: an evicted push waits until it is believed lost"
    return Finding(name, ok=ok, detail=f"maxmemory-policy {policy}", remedy=remedy)


def _memory(info: Info, name: str) -> Finding:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not limit:
        return Finding(name, ok=True, detail="no maxmemory")
    ok = used < FULL_AT * limit
    detail = f"{used / limit:.0%} of maxmemory in use"
    remedy = "" if ok else "raise maxmemory, or find what fills it with MEMORY STATS"
    return Finding(name, ok=ok, detail=detail, remedy=remedy)


def _persistence(info: Info, name: str) -> Finding:
    # Redis does not tell in INFO whether snapshots are planned; a plan that has never run counts as none.
    if info.get("aof_enabled"):
        return Finding(name, ok=True, detail="append-only file")
    remedy = "CONFIG SET appendonly yes: without it a restart loses no message, but pushes have to be made again"
    return Finding(name, ok=True, detail="no append-only file", remedy=remedy)
