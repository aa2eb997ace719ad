"""Redis in cluster mode, and a Redis that several installations share."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Final

import pytest
import redis
from redis.crc import key_slot

from bridge_service.brokers.broker import WaitingBroker
from bridge_service.brokers.messages import QUEUE_NAME, message_for
from bridge_service.brokers.redis_client import HOPS, Nodes, connect
from bridge_service.checks.redis import check_redis
from bridge_service.demo.servers import RedisServer
from tests.support.app import App
from tests.support.recorder import Recorder
from tests.support.redis_servers import OldRedisServer, cluster_node, cluster_of, old_redis_binary
from tests.support.service import QUICK, Service
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bridge_service.checks.finding import Finding
    from tests.support.roles import Urls

SERVERS: Final = ["one node", "three nodes", "one node of Redis 6.2"]


@pytest.fixture(scope="module", params=SERVERS)
def cluster(request: pytest.FixtureRequest, servers_folder: Path) -> Iterator[tuple[RedisServer, ...]]:
    """Give clusters of several sizes and versions."""
    kind = OldRedisServer if request.param.endswith("6.2") else RedisServer
    if kind is OldRedisServer and old_redis_binary() is None:
        pytest.skip("no Redis 6.2 on this machine")
    count = 3 if request.param == "three nodes" else 1
    with cluster_of(*(cluster_node(servers_folder, kind) for _ in range(count))) as nodes:
        yield nodes


def keys(nodes: tuple[RedisServer, ...], pattern: str) -> set[str]:
    """Return the keys of all nodes that match."""
    found: set[str] = set()
    for node in nodes:
        with closing(redis.Redis.from_url(node.url(), decode_responses=True)) as client:
            found.update(client.scan_iter(pattern))
    return found


def looked(url: str, queue_id: str | None = "an id") -> dict[str, Finding]:
    """Return what `check` finds in a Redis."""
    return {
        finding.name: finding for finding in check_redis(url, "redis", "REDIS_URL", describe=str, queue_id=queue_id)
    }


def broker_on(server: RedisServer, queue_id: str) -> WaitingBroker:
    """Return a broker of the installation with this ID."""
    return WaitingBroker(server.url(), emit=Recorder(), middleware=[], queue_id=lambda: queue_id)


def test_conversations_are_answered_on_a_cluster(cluster: tuple[RedisServer, ...], bridge_database: Urls) -> None:
    """From whichever node the URL names: groups are shown and forgotten, and each of many is answered once."""
    environment = {"DATABASE_URL": bridge_database.service, "REDIS_URL": cluster[-1].url(), **QUICK}
    with Service(environment) as service, closing(App(bridge_database)) as app:
        queue_id = app.value("SELECT bridge.queue_id()")
        for node in cluster:
            assert [finding for finding in looked(node.url(), queue_id).values() if not finding.ok] == []
        service.environment["GROUPING_DELAY"] = "2"
        service.up()
        matches = [app.old_match() for _ in range(12)]
        for match in matches:
            app.write(match, f"salut {match}")
        eventually(lambda: keys(cluster, "context:*") == {f"context:{match}" for match in matches})
        for match in matches:
            app.wait_for_replies(match, f"salut {match}")
        eventually(lambda: keys(cluster, "context:*") == set())
        assert keys(cluster, "*") <= {f"dramatiq:{{{queue_id}}}:{QUEUE_NAME}.bell"}
        assert not service.lines("Redis perdu|Tentative|CRITICAL|Traceback")
        assert service.stop() == [0, 0]


@pytest.mark.slow
def test_a_node_that_comes_back_is_found_again(servers_folder: Path, bridge_database: Urls) -> None:
    """The node that holds the queue dies and returns: what was written meanwhile is answered without a restart."""
    with (
        cluster_of(*(cluster_node(servers_folder) for _ in range(3))) as nodes,
        closing(App(bridge_database)) as app,
        closing(connect(nodes[0].url())) as client,
    ):
        queue_id = app.value("SELECT bridge.queue_id()")
        client.exists(f"dramatiq:{{{queue_id}}}:{QUEUE_NAME}")
        port = client.connection_pool.connection_kwargs["port"]
        [holder] = [node for node in nodes if node.port == port]
        other = next(node for node in nodes if node is not holder)
        environment = {"DATABASE_URL": bridge_database.service, "REDIS_URL": other.url(), **QUICK}
        with Service(environment) as service:
            service.up()
            holder.kill()
            match = app.old_match()
            app.write(match, "salut")
            service.wait_for_line("Tentative 1/3")
            holder.start()
            app.wait_for_replies(match, "salut", timeout=30)
            assert service.stop() == [0, 0]


def test_every_slot_is_reached(cluster: tuple[RedisServer, ...]) -> None:
    """Wherever an ID puts the queue, and a match its group, the URL's node leads there, also after slots have moved."""
    for number in range(20):
        with closing(broker_on(cluster[0], f"queue {number}")) as broker:
            broker.enqueue_many([message_for("compose", number + 1)])
            assert len(broker.fetch(QUEUE_NAME, 5)) == 1
            broker.drop_connections()
            assert broker.fetch(QUEUE_NAME, 5) == []
            broker.client.delete(broker.bell(QUEUE_NAME))
    with closing(connect(cluster[0].url())) as client:
        nodes = Nodes(client)
        commands = [("SET", f"context:{number}", number) for number in range(100)]
        nodes.run(commands)
        for slot in {key_slot(key.encode()) for _, key, _ in commands}:
            nodes._places[slot] = client  # as after slots have moved
        nodes.run([("DEL", key) for _, key, _ in commands])
        nodes.forget()
        nodes.run(commands[:1] * HOPS)
        nodes.run([("DEL", commands[0][1])])
        nodes.forget()
    assert keys(cluster, "context:*") == set()


def test_check_leaves_a_running_queue_as_it_is(cluster: tuple[RedisServer, ...]) -> None:
    """The scripts run on the real keys: no message is taken, doubled or left behind, and no bell is lost."""
    with closing(broker_on(cluster[0], "live")) as broker:
        broker.enqueue_many([message_for("compose", 1), message_for("compose", 2)])
        assert all(finding.ok for finding in looked(cluster[0].url(), "live").values())
        assert redis_length(broker) == 2
        assert broker.client.llen(broker.bell(QUEUE_NAME)) >= 1
        assert len(broker.fetch(QUEUE_NAME, 5)) == 2
        broker.client.delete(broker.bell(QUEUE_NAME))


def redis_length(broker: WaitingBroker) -> int:
    """Return how many ids wait."""
    return int(broker.client.llen(broker.key(QUEUE_NAME)))


def test_check_says_what_ails_a_cluster(servers_folder: Path) -> None:
    """A cluster without its slots, a database that it does not have, and keys that its user may not touch are named."""
    with ExitStack() as stack:
        server = stack.enter_context(cluster_node(servers_folder))
        finding = looked(server.url())["redis_scripting"]
        assert (finding.ok, "CLUSTER INFO" in finding.remedy) == (False, True)
        finding = looked(server.url(database=1))["redis"]
        assert (finding.ok, "end the URL in /0" in finding.remedy) == (False, True)
        server.stop()
        stack.enter_context(cluster_of(server))
        admin = stack.enter_context(closing(redis.Redis.from_url(server.url())))
        admin.acl_setuser("guest", enabled=True, passwords="+pass", keys=["dramatiq:*"], categories=["+@all"])
        guest = server.url().replace("//", "//guest:pass@")
        assert looked(guest)["redis_scripting"].ok
        admin.acl_setuser("guest", enabled=True, reset_keys=True, keys=["dramatiq:bot_messages*"])
        finding = looked(guest)["redis_scripting"]
        assert (finding.ok, "dramatiq:*" in finding.remedy) == (False, True)
