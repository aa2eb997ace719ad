"""A process of the service that dies, hangs or does a thing twice at one named point, once.

    CRASH=after:claim:die CRASH_ONCE=/tmp/file dramatiq tests.chaos.crashing     the worker
    CRASH=before:enqueue_many:hang CRASH_ONCE=/tmp/file python -m tests.chaos.crashing     the scheduler

Every step of the service is one call of one method, so the places between two steps are the moments before and after
such a call: nothing has to be built into the service for this. The file CRASH_ONCE makes the process that is started in
its place behave. Leases and patience are short, so that recovery takes seconds.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dramatiq

from bridge_service.brokers import consumer
from bridge_service.brokers.broker import WaitingBroker
from bridge_service.machine import steps as store
from bridge_service.machine.answers import Deliveries
from bridge_service.machine.steps import Store
from bridge_service.process import watchdog
from bridge_service.responders import echo
from bridge_service.worker import leases
from bridge_service.worker.process import assemble
from schedulers import __main__ as scheduler
from schedulers import bells, deliverer, planner

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEDULER_STEPS: Final = ("group", "overtake", "push_due", "enqueue_many", "next_due", "deliver_due")
WORKER_STEPS: Final = ("fetch", "claim", "reply", "finish", "deliver")
"""`deliver` is an opener without a pause; `deliver_due` is whatever has one."""
MOMENTS: Final = ("before", "after")
ACTIONS: Final = ("die", "hang", "repeat")

_OWNERS: Final[dict[str, Any]] = {
    "group": Store,
    "overtake": Store,
    "push_due": Store,
    "next_due": Store,
    "claim": Store,
    "finish": Store,
    "deliver": Store,
    "deliver_due": Store,
    "enqueue_many": WaitingBroker,
    "fetch": WaitingBroker,
    "reply": echo,
}

SHORT_LEASE_SECONDS: Final = 2.0
SHORT_PATIENCE_SECONDS: Final = 4.0


def arm(crash: str, once: Path) -> None:
    """Set the trap named by `moment:step:action`, and shorten what recovery waits for."""
    store.LEASE_SECONDS = leases.LEASE_SECONDS = SHORT_LEASE_SECONDS  # type: ignore[misc,attr-defined,unused-ignore]
    store.PUSH_AGAIN_SECONDS = store.PUSH_AGAIN_MAX_SECONDS = 1.0  # type: ignore[misc,unused-ignore]
    os.environ["RESPONDER_TIMEOUT"] = str(SHORT_PATIENCE_SECONDS)
    consumer.BELL_SECONDS = 1  # type: ignore[misc,unused-ignore]
    bells.HEARTBEAT_SECONDS = 1.0  # type: ignore[misc,unused-ignore]
    planner.SWEEP_SECONDS = deliverer.SWEEP_SECONDS = 1.0  # type: ignore[misc,unused-ignore]
    watchdog.LOOK_SECONDS = 0.5  # type: ignore[misc,unused-ignore]
    assert watchdog.Watchdog.__init__.__kwdefaults__ is not None
    watchdog.Watchdog.__init__.__kwdefaults__["patience"] = SHORT_PATIENCE_SECONDS
    moment, step, action = crash.split(":")
    owner = _OWNERS[step]
    setattr(owner, step, _trapped(getattr(owner, step), moment, action, once))


def _trapped(call: Callable[..., Any], moment: str, action: str, once: Path) -> Callable[..., Any]:
    @functools.wraps(call)
    def trapped(*args: object, **kwargs: object) -> object:
        idle = False
        if moment == "after":
            result = call(*args, **kwargs)
            # An empty look or fetch is no step: the trap waits for one that matters.
            idle = not result.outcomes if isinstance(result, Deliveries) else result in ([], 0)
        if not idle and _first(once):
            if action == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            elif action == "hang":
                threading.Event().wait()
            else:
                call(*args, **kwargs)
        return result if moment == "after" else call(*args, **kwargs)

    return trapped


def _first(once: Path) -> bool:
    try:
        once.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


if "CRASH" in os.environ:
    arm(os.environ["CRASH"], Path(os.environ["CRASH_ONCE"]))
    # Dramatiq takes the broker that was set last; the package's own was made before the trap was set.
    dramatiq.set_broker(assemble(os.environ))

if __name__ == "__main__":
    sys.exit(scheduler.main())
