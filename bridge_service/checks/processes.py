"""The looks at the running processes: whether they are there, and whether their environments agree."""

from collections import defaultdict
from typing import Any, Final

from bridge_service.checks.finding import Found, well, wrong
from bridge_service.checks.installation import ledger
from bridge_service.checks.look import UNKNOWN
from bridge_service.errors import StepRefused
from bridge_service.machine.alive import ALIVE, SILENCE_SECONDS, count_alive
from bridge_service.machine.database import Connection
from bridge_service.settings import POLICY
from bridge_service.settings.pages import VARIABLES
from bridge_service.settings.words import as_text

RESTART_SECONDS: Final = 15.0
"""How long a deployment may take to start a process again."""

_DEFAULTS: Final = {variable.name.lower(): variable.default for variable in VARIABLES}

_WORK: Final = {"scheduler": "`python -m schedulers`", "worker": "`dramatiq bridge_service --processes 2 --threads 8`"}


def processes(connection: Connection) -> Found:
    """Fail if a role has no live process and a message has waited for longer than a deployment takes."""
    books = ledger(connection)
    try:
        alive = count_alive(books.processes(SILENCE_SECONDS, SILENCE_SECONDS))
        status = books.status()
        delay = books.policy()["grouping_delay"]
    except StepRefused:
        return well(UNKNOWN)
    detail = "alive: " + ", ".join(f"{role}s {number}" for role, number in alive.items())
    absent = [role for role, number in alive.items() if not number]
    # Without a worker no turn is overdue for long: each vain push sets a new due time.
    waiting = status.overdue if alive["worker"] else max(status.overdue, status.queued)
    remedy = " and ".join(f"start a {role}: {_WORK[role]}" for role in absent)
    if absent and waiting and status.oldest_unanswered_seconds > delay + RESTART_SECONDS:
        return wrong(f"{detail}; turns that wait: {waiting}", remedy)
    return well(detail, remedy)


def policy(connection: Connection) -> Found:
    """Compare the policy in the living processes' environments: only a scheduler's is written to bridge.bots."""
    try:
        seen = ledger(connection).processes(SILENCE_SECONDS, SILENCE_SECONDS)
    except StepRefused:
        return well(UNKNOWN)
    living = [each for each in seen if each["state"] == ALIVE and each.get("environment") is not None]
    faults = [f"{name.upper()} is {told}" for name in POLICY if (told := _disagreement(name, living))]
    if not faults:
        return well("the living processes' environments agree")
    remedy = "set these variables alike for every process and restart it, or set them once with `bots set default`"
    return wrong("; ".join(faults), remedy)


def _disagreement(name: str, living: list[dict[str, Any]]) -> str:
    """Tell which roles have which value of a variable; '' where all have the same."""
    roles: dict[str, set[str]] = defaultdict(set)
    for process in living:
        value = process["environment"].get(name, _DEFAULTS[name])
        roles[as_text(float(value) if isinstance(value, int) else value) or "unset"].add(f"a {process['role']}")
    if len(roles) < 2:  # noqa: PLR2004 - two values disagree
        return ""
    return ", ".join(f"{value} for {' and '.join(sorted(found))}" for value, found in sorted(roles.items()))
