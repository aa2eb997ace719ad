"""The look for a scheduler and a worker."""

from typing import Final

from bridge_service.checks.finding import Found, well, wrong
from bridge_service.checks.installation import ledger
from bridge_service.checks.look import UNKNOWN
from bridge_service.errors import StepRefused
from bridge_service.machine.alive import SILENCE_SECONDS, count_alive
from bridge_service.machine.database import Connection

RESTART_SECONDS: Final = 15.0
"""How long a deployment may take to start a process again."""

_WORK: Final = {"scheduler": "`python -m schedulers`", "worker": "`dramatiq bridge_service --processes 2 --threads 8`"}


def processes(connection: Connection, grouping_delay: float) -> Found:
    """Fail if a role has no live process and a message has waited for longer than a deployment takes."""
    books = ledger(connection)
    try:
        alive = count_alive(books.processes(SILENCE_SECONDS, SILENCE_SECONDS))
        status = books.status(grouping_delay)
    except StepRefused:
        return well(UNKNOWN)
    detail = "alive: " + ", ".join(f"{role}s {number}" for role, number in alive.items())
    absent = [role for role, number in alive.items() if not number]
    # Without a worker no turn is overdue for long: each vain push sets a new due time.
    waiting = status.overdue if alive["worker"] else max(status.overdue, status.queued)
    remedy = " and ".join(f"start a {role}: {_WORK[role]}" for role in absent)
    if absent and waiting and status.oldest_unanswered_seconds > grouping_delay + RESTART_SECONDS:
        return wrong(f"{detail}; turns that wait: {waiting}", remedy)
    return well(detail, remedy)
