"""What the worker processes measure, and the one port on which they show it together.

`dramatiq` runs several processes of one service, and an operator scrapes one port a service (some platforms open no
second one). A port for each process would need as many scrape targets as there are processes. A port that all of them
bind would give a scrape the numbers of one of them, by chance. So the first process serves the sum of all. If one
process ends, Dramatiq ends all.
"""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import current_process
from typing import cast

from dramatiq import Broker, Middleware, Worker

from bridge_service.responders import Responder, is_async
from bridge_service.telemetry.metrics import Metrics
from bridge_service.telemetry.signals import Signal
from bridge_service.turns import Task
from bridge_service.web.health_port import HealthPort
from bridge_service.web.shared_numbers import SharedNumbers


class WorkerMetrics(Middleware):
    """Counts signals from the boot of a worker process on; without a port it does nothing.

    Parameters:
      host: address for the port.
      port: HEALTH_PORT; None if it is unset.
      live: see HealthPort; of the process that serves. The others are watched by their own watchdogs, and by the
        loops' timestamps among the numbers, of which the oldest of all processes is shown.
      ready: see HealthPort.
      token: see HealthPort.
    """

    def __init__(
        self,
        host: str,
        port: int | None,
        *,
        live: Callable[[], list[str]],
        ready: Callable[[], list[str]],
        token: str | None,
    ) -> None:
        self._host = host
        self._port = port
        self._live = live
        self._ready = ready
        self._token = token
        self._metrics: Metrics | None = None
        self._numbers: SharedNumbers | None = None
        self._server: HealthPort | None = None

    def __call__(self, signal: Signal) -> None:
        """Count a signal."""
        if self._metrics is not None:
            self._metrics(signal)

    def timed(self, responder: Responder) -> Responder:
        """Return a responder that does the same and has its time taken."""

        def measured(task: Task) -> object:
            with self._timing():
                return responder(task)

        async def measured_async(task: Task) -> object:
            with self._timing():
                return await cast("Awaitable[object]", responder(task))

        return measured_async if is_async(responder) else measured

    @contextmanager
    def _timing(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            if self._metrics is not None:
                self._metrics.responder_took(time.monotonic() - began)

    def loops_turned(self, ages: Mapping[str, float]) -> None:
        """Note when each loop of this process last turned: to be called every second; see Watchdog.ages."""
        if self._metrics is not None:
            self._metrics.loops_turned(ages, time.time())

    @property
    def serves(self) -> bool:
        """True in the one of all processes that shows the numbers."""
        return self._port is not None and current_process().name == "Process-1"

    def after_process_boot(self, broker: Broker) -> None:
        """Begin to count, and to serve if this is the first process."""
        del broker
        if self._port is None:
            return
        self._numbers = SharedNumbers(serves=self.serves)
        self._metrics = Metrics(self._numbers.begin())
        if self.serves:
            self._server = HealthPort(
                self._host, self._port, live=self._live, ready=self._ready, numbers=self._numbers, token=self._token
            )
            self._server.start()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Stop serving."""
        del broker, worker
        self.close()

    def close(self) -> None:
        """Stop serving and take this process's files away; twice is harmless."""
        if self._server is not None:
            self._server.stop(0)
        if self._numbers is not None:
            self._numbers.close()
