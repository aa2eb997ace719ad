"""The two actors of queue `bot_messages`: decode, call one plain function, let errors rise."""

from collections.abc import Callable
from typing import Final, Protocol

import dramatiq
from dramatiq import Broker
from dramatiq.errors import Retry

from bridge_service.brokers.messages import QUEUE_NAME
from bridge_service.errors import BridgeError

# Lower goes first: a reply whose time has come does not wait behind the composing of others.
DELIVER_PRIORITY: Final = 0
COMPOSE_PRIORITY: Final = 10


class Steps(Protocol):
    """What the actors call; see composer.Composer."""

    def compose(self, turn_id: int) -> None:
        """Claim a turn and write its reply."""

    def deliver(self, turn_id: int) -> None:
        """Deliver a reply whose time has come: a push of a scheduler of the version before."""


def declare_actors(broker: Broker, steps: Steps) -> None:
    """Declare `compose` and `deliver` on a broker."""

    @dramatiq.actor(broker=broker, queue_name=QUEUE_NAME, actor_name="compose", priority=COMPOSE_PRIORITY)
    def compose(turn_id: int) -> None:
        _run(steps.compose, turn_id)

    @dramatiq.actor(broker=broker, queue_name=QUEUE_NAME, actor_name="deliver", priority=DELIVER_PRIORITY)
    def deliver(turn_id: int) -> None:
        _run(steps.deliver, turn_id)


def _run(step: Callable[[int], None], turn_id: int) -> None:
    try:
        step(turn_id)
    except BridgeError as error:
        # Dramatiq logs a Retry nowhere: the middleware tells of it, once a second.
        raise Retry(str(error)) from error
