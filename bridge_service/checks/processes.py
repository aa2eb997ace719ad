"""The look for a scheduler and a worker."""

from typing import Final

from bridge_service.checks.finding import TIMEOUT_SECONDS, Finding
from bridge_service.errors import StepRefused
from bridge_service.machine.alive import SILENCE_SECONDS, count_alive
from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import Ledger

RESTART_SECONDS: Final = 15.0
"""How long people may wait for a process that a deployment is about to start again."""

_WORK: Final = {"scheduler": "`python -m schedulers`", "worker": "`dramatiq bridge_service --processes 2 --threads 8`"}


def processes(connection: Connection, grouping_delay: float) -> Finding:
    """Look for a scheduler and a worker: their absence is well until somebody waits for them."""
    ledger = Ledger(connection, seconds=TIMEOUT_SECONDS)
    try:
        alive = count_alive(ledger.processes(SILENCE_SECONDS, SILENCE_SECONDS))
        status = ledger.status(grouping_delay)
    except StepRefused:
        return Finding("processes", ok=True, detail="not known while the schema or a right is missing")
    detail = "alive: " + ", ".join(f"{role}s {number}" for role, number in alive.items())
    absent = [role for role, number in alive.items() if not number]
    # Without a worker nothing is overdue for long: the scheduler pushes what is queued again, and again in vain.
    waiting = status.overdue if alive["worker"] else max(status.overdue, status.queued)
    missed = absent and waiting and status.oldest_unanswered_seconds > grouping_delay + RESTART_SECONDS
    if missed:
        detail += f"; turns that wait: {waiting}"
    remedy = " and ".join(f"start a {role}: {_WORK[role]}" for role in absent)
    return Finding("processes", ok=not missed, detail=detail, remedy=remedy)
