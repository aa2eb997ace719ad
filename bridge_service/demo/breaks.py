"""The ways in which the playground breaks its own servers and processes, and mends them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import redis

from bridge_service.brokers.redis_client import connect
from bridge_service.demo.stage import Stage
from bridge_service.errors import BridgeError

BREAK_SECONDS: Final = 10.0
PAUSE_SECONDS: Final = 2.0
"""How long a process or PostgreSQL is down at least, so that a person sees it."""

BOOT_SECONDS: Final = 30.0
WORKER_BOOTED: Final = "✅ Connecté à PostgreSQL"

_UNTIL_MENDED: Final = 0.0


class Breaks:
    """Breaks one thing of each kind at a time, each on a thread of its own; every break ends by itself."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self._broken: dict[str, float] = {}
        self._ways: dict[str, Callable[[], None]] = {
            "redis": self._kill_redis,
            "empty": self._empty_redis,
            "worker": self._kill_worker,
            "scheduler": self._freeze_scheduler,
            "postgresql": self._restart_postgresql,
        }
        if stage.switches_model:
            self._ways["model"] = self._send_model_away

    @property
    def names(self) -> list[str]:
        """What can be broken."""
        return [*self._ways]

    @property
    def broken(self) -> dict[str, float]:
        """What is broken now, and until when in seconds since the epoch; 0 where that is not known."""
        return dict(self._broken)

    def begin(self, name: str) -> bool:
        """Break something; return False if it is broken already, or if the demo ends."""
        with self._lock:
            if self._ending.is_set() or name in self._broken:
                return False
            self._broken[name] = _UNTIL_MENDED
            thread = threading.Thread(target=self._run, args=(name,), name=f"break {name}")
            self._threads[name] = thread
            thread.start()
        return True

    def stop(self) -> None:
        """Mend everything and return when that is done."""
        with self._lock:
            self._ending.set()
        for thread in self._threads.values():
            thread.join()

    def _run(self, name: str) -> None:
        try:
            self._ways[name]()
        except (BridgeError, redis.RedisError, OSError) as error:
            self._stage.screen.say(f"The playground could not break or mend {name}: {error}", "bold red")
        finally:
            del self._broken[name]

    @contextmanager
    def _for_seconds(self, name: str, seconds: float) -> Iterator[None]:
        """Wait at the end of the block until `seconds` after its beginning, or until the demo ends."""
        self._broken[name] = time.time() + seconds
        yield
        self._ending.wait(max(0.0, self._broken[name] - time.time()))
        self._broken[name] = _UNTIL_MENDED

    def _kill_redis(self) -> None:
        with self._for_seconds("redis", BREAK_SECONDS):
            self._stage.redis.kill()
        self._stage.redis.start()

    def _empty_redis(self) -> None:
        client = connect(self._stage.redis.url())
        try:
            client.flushall()
        finally:
            client.close()

    def _kill_worker(self) -> None:
        with self._for_seconds("worker", PAUSE_SECONDS):
            self._stage.processes.kill("worker")
        if self._ending.is_set():
            return
        mark = self._stage.log.mark()
        self._stage.processes.start_again("worker")
        self._stage.log.wait(
            lambda lines: any(each.process == "worker" and each.text == WORKER_BOOTED for each in lines),
            mark,
            BOOT_SECONDS,
        )

    def _freeze_scheduler(self) -> None:
        with self._for_seconds("scheduler", BREAK_SECONDS):
            self._stage.processes.freeze("scheduler")
        self._stage.processes.thaw("scheduler")

    def _restart_postgresql(self) -> None:
        with self._for_seconds("postgresql", PAUSE_SECONDS):
            self._stage.postgres.stop()
        self._stage.postgres.start()

    def _send_model_away(self) -> None:
        with self._for_seconds("model", BREAK_SECONDS):
            self._stage.model_away.touch()
        self._stage.model_away.unlink()
