"""The looks at the running processes: whether they are there, and whether their environments agree."""

from collections import defaultdict
from typing import Any, Final

from bridge_service.checks.finding import TIMEOUT_SECONDS, Finding
from bridge_service.errors import DatabaseRefused, SchemaMissing
from bridge_service.machine.alive import ALIVE, SILENCE_SECONDS, count_alive
from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import Ledger
from bridge_service.settings import POLICY
from bridge_service.settings.pages import VARIABLES
from bridge_service.settings.words import as_text

RESTART_SECONDS: Final = 15.0
"""How long people may wait for a process that a deployment is about to start again."""

_DEFAULTS: Final = {variable.name.lower(): variable.default for variable in VARIABLES}

_WORK: Final = {"scheduler": "`python -m schedulers`", "worker": "`dramatiq bridge_service --processes 2 --threads 8`"}


def processes(connection: Connection) -> Finding:
    """Look for a scheduler and a worker: their absence is well until a turn waits for them."""
    ledger = Ledger(connection, seconds=TIMEOUT_SECONDS)
    try:
        alive = count_alive(ledger.processes(SILENCE_SECONDS, SILENCE_SECONDS))
        status = ledger.status()
        delay = ledger.policy()["grouping_delay"]
    except (SchemaMissing, DatabaseRefused):
        return Finding("processes", ok=True, detail="not known while the schema or a right is missing")
    detail = "alive: " + ", ".join(f"{role}s {number}" for role, number in alive.items())
    absent = [role for role, number in alive.items() if not number]
    # Without a worker nothing is overdue for long: the scheduler pushes what is queued again, and again in vain.
    waiting = status.overdue if alive["worker"] else max(status.overdue, status.queued)
    missed = absent and waiting and status.oldest_unanswered_seconds > delay + RESTART_SECONDS
    if missed:
        detail += f"; turns that wait: {waiting}"
    remedy = " and ".join(f"start a {role}: {_WORK[role]}" for role in absent)
    return Finding("processes", ok=not missed, detail=detail, remedy=remedy)


def policy(connection: Connection) -> Finding:
    """Compare the policy in the living processes' environments: only a scheduler's is written to bridge.bots."""
    try:
        seen = Ledger(connection, seconds=TIMEOUT_SECONDS).processes(SILENCE_SECONDS, SILENCE_SECONDS)
    except (SchemaMissing, DatabaseRefused):
        return Finding("policy", ok=True, detail="not known while the schema or a right is missing")
    living = [each for each in seen if each["state"] == ALIVE and each.get("environment") is not None]
    faults = [f"{name.upper()} is {told}" for name in POLICY if (told := _disagreement(name, living))]
    if not faults:
        return Finding("policy", ok=True, detail="the living processes' environments agree")
    remedy = "set these variables alike for every process and restart it, or set them once with `bots set default`"
    return Finding("policy", ok=False, detail="; ".join(faults), remedy=remedy)


def _disagreement(name: str, living: list[dict[str, Any]]) -> str:
    """Tell which roles have which value of a variable; '' where all have the same."""
    roles: dict[str, set[str]] = defaultdict(set)
    for process in living:
        value = process["environment"].get(name, _DEFAULTS[name])
        roles[as_text(float(value))].add(f"a {process['role']}")
    if len(roles) < 2:  # noqa: PLR2004 - two values disagree
        return ""
    return ", ".join(f"{value} for {' and '.join(sorted(who))}" for value, who in sorted(roles.items()))
