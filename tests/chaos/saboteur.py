"""The service with one rule taken out, for sabotage.py.

    python -m tests.chaos.saboteur NAME          the scheduler
    dramatiq tests.chaos.saboteur:worker_NAME    the worker

A breakage is a function here; it patches what it breaks, in this process only, before the service is wired.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

from dramatiq import Message

from bridge_service.machine.answers import Deliveries, Outcome
from bridge_service.machine.steps import Store
from bridge_service.worker.budget import StoredBudget
from schedulers import looks
from schedulers.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from bridge_service.responders.budget import Call

BETWEEN_SECONDS: Final = 0.3
"""Between the two transactions of `half_delivery`: a kill has to meet it within a short run."""


def no_look_at_start() -> None:
    """Leave only bells: no look at the start or after a reconnection, no look after a batch, no sweep."""
    # What stands on the class as a property is in force whatever an instance sets.
    looks.Looks._everything = property(lambda _: False, lambda *_: None)  # type: ignore[assignment]
    looks.AFTER_BATCH_SECONDS = ()  # type: ignore[assignment,misc]


def half_delivery() -> None:
    """Insert the reply in one transaction and end the turn in another one."""

    def deliver(self: Store, turn_id: int, **_: object) -> Outcome:
        outcome = self._step("SELECT bridge.insert_reply(%s)", turn_id)
        time.sleep(BETWEEN_SECONDS)
        self._database.call("SELECT bridge.mark_answered(%s)", turn_id)
        return outcome

    def deliver_due(self: Store, limit: int, alone: Sequence[int]) -> Deliveries:
        for turn_id in self.due_deliveries(limit, alone):
            deliver(self, turn_id)
        return Deliveries({}, None)

    Store.deliver = deliver  # type: ignore[method-assign]
    Store.deliver_due = deliver_due  # type: ignore[method-assign]


def trusting_consumer() -> None:
    """Take a message from Redis as it is."""

    def rebuild(body: bytes, queue_name: str) -> Message[Any]:
        del queue_name
        return Message.decode(body)

    # Not by attribute: that is the broker itself, which the package calls so too.
    vars(sys.modules["bridge_service.brokers.broker"])["rebuild"] = rebuild


def away_counts() -> None:
    """Count it as an attempt when the responder is away."""

    def fail(
        self: Store, turn_id: int, token: UUID, error: str, *, retry: float, counts: bool, refused: str | None = None
    ) -> Outcome:
        del counts
        return intact(self, turn_id, token, error, retry=retry, counts=True, refused=refused)

    intact = Store.fail
    Store.fail = fail  # type: ignore[method-assign]


def no_reservation() -> None:
    """Begin each call of the model without a reservation."""

    async def reserve(self: StoredBudget, call: Call) -> None:
        del self, call

    StoredBudget.reserve = reserve  # type: ignore[method-assign]


def __getattr__(name: str) -> Callable[[], None]:
    """Give the worker's entry point of a breakage."""
    if not name.startswith("worker_"):
        raise AttributeError(name)
    breakage = globals()[name.removeprefix("worker_")]

    def enter() -> None:
        breakage()
        import bridge_service  # noqa: F401, PLC0415 - sets the broker, with the breakage in place

    return enter


if __name__ == "__main__":
    globals()[sys.argv.pop()]()
    sys.exit(main())
