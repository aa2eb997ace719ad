"""What `dramatiq tests.support.measured_worker:broker` runs: processes that count, on a queue in their own memory.

Each of them processes one message, and tells of one delivered reply. NO_SHARED_MEMORY takes /dev/shm away from them.
"""

import os

import dramatiq
from dramatiq import Broker, Middleware, Worker
from dramatiq.brokers.stub import StubBroker

from bridge_service.responders import echo
from bridge_service.telemetry.signals import ReplyDelivered
from bridge_service.turns import Kind
from bridge_service.web import shared_numbers
from bridge_service.worker.numbers import WorkerMetrics
from tests.support.signals import MATCH
from tests.unit.test_responders import task

if "NO_SHARED_MEMORY" in os.environ:
    shared_numbers.SHARED_MEMORY = os.environ["NO_SHARED_MEMORY"]  # type: ignore[misc]

measure = WorkerMetrics("127.0.0.1", int(os.environ["HEALTH_PORT"]), live=list, ready=list, token=None)


class Begin(Middleware):
    """Gives the process its work."""

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Enqueue it."""
        del broker, worker
        compose.send(1)
        measure.loops_turned({"tick": float(os.getpid() % 1000)})


broker = StubBroker(middleware=[measure, Begin()])


@dramatiq.actor(broker=broker, queue_name="bot_messages", actor_name="compose")
def compose(turn_id: int) -> None:
    """Deliver a reply."""
    measure(ReplyDelivered(turn_id, MATCH, MATCH, Kind.REPLY, 12, 3, 0.2))
    measure.timed(echo.reply)(task("salut"))
