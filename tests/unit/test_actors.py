from __future__ import annotations

import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import Retry

from bridge_service.brokers.messages import ACTOR_NAMES, QUEUE_NAME, message_for, rebuild
from bridge_service.errors import BridgeError, DatabaseBusy, DatabaseRefused, DatabaseUnavailable
from bridge_service.worker.actors import COMPOSE_PRIORITY, DELIVER_PRIORITY, declare_actors


class Steps:
    """Notes what it is asked for, and raises what the test says."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple[str, int]] = []
        self._error = error

    def compose(self, turn_id: int) -> None:
        """Compose."""
        self._note("compose", turn_id)

    def deliver(self, turn_id: int) -> None:
        """Deliver."""
        self._note("deliver", turn_id)

    def _note(self, step: str, turn_id: int) -> None:
        self.calls.append((step, turn_id))
        if self._error:
            raise self._error


@pytest.fixture
def broker() -> StubBroker:
    """Give a broker in memory, without any middleware."""
    return StubBroker(middleware=[])


def test_there_is_an_actor_for_each_step_and_no_other(broker: StubBroker) -> None:
    """The names and the queue are those of the messages that the scheduler pushes."""
    declare_actors(broker, Steps())
    assert broker.actors.keys() == ACTOR_NAMES
    assert {actor.queue_name for actor in broker.actors.values()} == {QUEUE_NAME}


@pytest.mark.parametrize("step", sorted(ACTOR_NAMES))
def test_a_message_makes_its_step(broker: StubBroker, step: str) -> None:
    """What `rebuild` lets through is what the actor can be called with."""
    steps = Steps()
    declare_actors(broker, steps)
    message = rebuild(message_for(step, 7).encode(), QUEUE_NAME)
    broker.get_actor(message.actor_name)(*message.args, **message.kwargs)
    assert steps.calls == [(step, 7)]


@pytest.mark.parametrize("error", [DatabaseUnavailable("gone"), DatabaseBusy("locked"), DatabaseRefused("no right")])
def test_a_database_that_is_away_or_refuses_is_tried_again_without_a_traceback(
    broker: StubBroker, error: BridgeError
) -> None:
    """Retry is the one error that Dramatiq does not log; its cause tells the middleware what happened."""
    declare_actors(broker, Steps(error))
    with pytest.raises(Retry) as raised:
        broker.get_actor("compose")(7)
    assert raised.value.__cause__ is error


def test_any_other_error_rises_as_it_is(broker: StubBroker) -> None:
    """A fault of ours is logged by Dramatiq, with its traceback."""
    declare_actors(broker, Steps(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        broker.get_actor("deliver")(7)


def test_deliveries_go_first(broker: StubBroker) -> None:
    """A reply whose time has come does not wait behind the composing of others."""
    assert DELIVER_PRIORITY < COMPOSE_PRIORITY
    declare_actors(broker, Steps())
    assert broker.get_actor("deliver").priority == DELIVER_PRIORITY
    assert broker.get_actor("compose").priority == COMPOSE_PRIORITY
