from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import redis
from dramatiq.errors import ConnectionClosed

from bridge_service.brokers.broker import WaitingBroker
from bridge_service.brokers.circuit import CircuitOpen, Reconnect
from bridge_service.brokers.messages import QUEUE_NAME, message_for
from bridge_service.telemetry.signals import RedisAttemptFailed, RedisGivenUp, RedisReconnected
from tests.support.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator


class Circuit:
    """The middleware on a broker whose Redis is not there."""

    def __init__(self) -> None:
        self.told = Recorder()
        self.reconnect = Reconnect(self.told)
        self.broker = WaitingBroker("redis://127.0.0.1:1/0", emit=self.told, middleware=[self.reconnect], queue_id=str)
        self.broker.declare_queue(QUEUE_NAME)

    def push(self) -> None:
        """Push a turn."""
        self.broker.enqueue_many([message_for("compose", 1)])


@pytest.fixture
def circuit() -> Iterator[Circuit]:
    """Give a closed circuit to a Redis that is not there."""
    circuit = Circuit()
    with closing(circuit.broker):
        yield circuit


def test_it_starts_closed(circuit: Circuit) -> None:
    """At first every push is tried."""
    assert not circuit.reconnect.is_open
    with pytest.raises(ConnectionClosed):
        circuit.push()
    assert circuit.told.signals == []


def test_an_open_circuit_refuses_at_once(circuit: Circuit) -> None:
    """Once Redis is given up no push waits for it, single or many."""
    circuit.reconnect.give_up(attempts=3)
    assert circuit.reconnect.is_open
    with pytest.raises(CircuitOpen):
        circuit.push()
    with pytest.raises(CircuitOpen):
        circuit.broker.enqueue(message_for("deliver", 1))


def test_an_open_circuit_lets_delayed_messages_pass(circuit: Circuit) -> None:
    """They stay in the process, and Redis has no part in them."""
    circuit.reconnect.give_up(attempts=3)
    circuit.broker.enqueue(message_for("compose", 1), delay=1)
    assert next(circuit.broker.consume(f"{QUEUE_NAME}.DQ")) is not None


def test_giving_up_is_told_once_an_outage(circuit: Circuit) -> None:
    """The definitive line comes once, and again only in the next outage."""
    circuit.reconnect.give_up(attempts=3)
    circuit.reconnect.give_up(attempts=3)
    circuit.reconnect.recovered()
    circuit.reconnect.give_up(attempts=3)
    assert circuit.told.signals == [RedisGivenUp(3), RedisReconnected(), RedisGivenUp(3)]


def test_recovery_closes_the_circuit(circuit: Circuit) -> None:
    """After it, pushes are tried again."""
    circuit.reconnect.give_up(attempts=3)
    circuit.reconnect.recovered()
    assert not circuit.reconnect.is_open
    with pytest.raises(ConnectionClosed):
        circuit.push()


def test_a_failed_attempt_leaves_the_circuit_alone_and_drops_the_pool(
    circuit: Circuit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt makes a new connection, and the line says which attempt failed and why."""
    dropped: list[bool] = []
    monkeypatch.setattr(circuit.broker, "drop_connections", lambda: dropped.append(True))
    error = ConnectionClosed(redis.ConnectionError("Connection reset"))  # type: ignore[no-untyped-call]
    circuit.reconnect.failed(circuit.broker, error, attempt=2, attempts=3)
    assert dropped == [True]
    assert circuit.told.signals == [RedisAttemptFailed(2, 3, "Connection reset")]
    assert not circuit.reconnect.is_open
