"""What the looks at PostgreSQL share: what a look is, how it asks, and the remedies that several of them name."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from bridge_service.checks.finding import TIMEOUT_SECONDS, Finding
from bridge_service.database import Connection

MIGRATE: Final = "run `python -m bridge_service migrate`"
MIGRATE_FOR: Final = f"{MIGRATE} as the schema's owner, with --runtime-role {{}}"
# A role that may call nothing is more often the wrong one, such as a reader, than one that was forgotten.
ANOTHER_ROLE: Final = f"DATABASE_URL: name the run-time role, or {MIGRATE_FOR}"
VALIDATE: Final = "run `python -m bridge_service validate`, which finds out"
REPLAY: Final = "`replay --since` that moment for what was missed"


class Look(NamedTuple):
    """One look at PostgreSQL.

    Attributes:
      name: of its finding.
      find: looks.
      remedy: what to do if `find` raises.
    """

    name: str
    find: Callable[[Connection], Finding]
    remedy: str


def connect(url: str) -> Connection:
    """Connect as `check` does."""
    return Connection(url, application="bridge check", seconds=TIMEOUT_SECONDS)


def row(connection: Connection, statement: str, *parameters: object) -> tuple[Any, ...]:
    """Return the one row of a statement."""
    [row] = connection.execute(statement, parameters, seconds=TIMEOUT_SECONDS)
    return row
