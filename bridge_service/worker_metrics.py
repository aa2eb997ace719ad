"""What the worker processes measure, and the one port on which they show it together.

`dramatiq` runs several processes of one service, and an operator scrapes one port a service (some platforms open no
second one): a port for each process would need as many scrape targets as there are processes, and one that all bind
would give a scrape the numbers of one of them, by chance. So each process counts into files that its brothers can read,
prometheus_client's multiprocess mode, and the first one serves the sum of all. If one process ends, Dramatiq ends all.
"""

import contextlib
import hashlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing import current_process
from pathlib import Path
from typing import Any, TypeVar

import prometheus_client.values
from dramatiq import Broker, Message, MessageProxy, Middleware, Worker
from dramatiq.common import q_name
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from bridge_service.events import Event
from bridge_service.metrics import MessageMetrics, Metrics
from bridge_service.web.probes import HealthServer

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")


class WorkerMetrics(Middleware):
    """Counts events and messages from the boot of a worker process on; without a port it does nothing.

    Parameters:
      host: address for the port.
      port: HEALTH_PORT; None if it is unset.
      live: see HealthServer; of the process that serves. Its brothers are watched by their own watchdogs, and by the
        loops' timestamps among the numbers, of which the oldest of all processes is shown.
      ready: see HealthServer.
      token: see HealthServer.
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
        self._messages: MessageMetrics | None = None
        self._server: HealthServer | None = None
        self._began: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Count an event."""
        if self._metrics is not None:
            self._metrics(event)

    def timed(self, call: Callable[[ArgumentT], ResultT]) -> Callable[[ArgumentT], ResultT]:
        """Return a responder that does the same and has its time taken."""

        def measured(argument: ArgumentT) -> ResultT:
            began = time.monotonic()
            try:
                return call(argument)
            finally:
                if self._metrics is not None:
                    self._metrics.responder_took(time.monotonic() - began)

        return measured

    def loops_turned(self, ages: Mapping[str, float]) -> None:
        """Note when each loop of this process last turned: to be called every second; see Watchdog.ages."""
        if self._metrics is not None:
            self._metrics.loops_turned(ages, time.time())

    # The process

    @property
    def serves(self) -> bool:
        """True in the one of all processes that shows the numbers."""
        return self._port is not None and current_process().name == "Process-1"

    def after_process_boot(self, broker: Broker) -> None:
        """Begin to count, and to serve if this is the first of its brothers."""
        del broker
        if self._port is None:
            return
        folder = _shared_folder()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        # The library chooses by that variable when it is imported, and by then nobody knew the folder.
        prometheus_client.values.ValueClass = prometheus_client.values.MultiProcessValue()  # type: ignore[no-untyped-call]
        own = CollectorRegistry()
        self._messages = MessageMetrics(own)
        self._metrics = Metrics(own)
        if self.serves:
            everybody = CollectorRegistry()
            MultiProcessCollector(everybody, path=str(folder))  # type: ignore[no-untyped-call]
            self._server = HealthServer(
                self._host, self._port, live=self._live, ready=self._ready, registry=everybody, token=self._token
            )
            self._server.start()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Stop serving."""
        del broker, worker
        self.close()

    def close(self) -> None:
        """Stop serving and take this process's files away, and the folder if they were the last; twice is harmless."""
        if self._port is None:
            return
        if self._server is not None:
            self._server.stop()
        folder = _shared_folder()
        for file in folder.glob(f"*_{os.getpid()}.db"):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a brother still counts
            folder.rmdir()

    # Messages

    def after_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Count a retry, when its wait begins."""
        del broker
        if self._messages is not None and delay is not None and "retries" in message.options:
            self._messages.retries.labels(*_labels(message)).inc()

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        """Count a message that was given up; its turn's due time brings it back."""
        del broker
        if self._messages is not None:
            self._messages.rejects.labels(*_labels(message)).inc()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Take the time."""
        del broker
        if self._messages is not None:
            self._began[message.message_id] = time.monotonic()

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: object = None, exception: BaseException | None = None
    ) -> None:
        """Count a message that was processed, well or not."""
        del broker, result
        if self._messages is None:
            return
        began = self._began.pop(message.message_id, None)
        if began is not None:
            self._messages.durations.labels(*_labels(message)).observe((time.monotonic() - began) * 1000)
        self._messages.messages.labels(*_labels(message)).inc()
        if exception is not None:
            self._messages.errors.labels(*_labels(message)).inc()

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Count it like one that was processed."""
        self.after_process_message(broker, message)


def _labels(message: Message[Any] | MessageProxy) -> tuple[str, str]:
    # A message that waited for its retry comes from the queue's delay queue; it is the same queue's.
    return q_name(message.queue_name), message.actor_name


def _shared_folder() -> Path:
    """Return the folder that all children of one `dramatiq` share, and nobody else; made by whoever comes first.

    What they share beyond their code is the key that their parent drew for multiprocessing. A name made of it belongs
    to one run, so no older run's numbers lie there, and cannot be guessed, so no other user has put a link there.
    """
    name = hashlib.sha256(b"bridge metrics" + multiprocessing.current_process().authkey).hexdigest()[:32]
    folder = Path(tempfile.gettempdir(), f"bridge-metrics-{name}")
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
