"""What the looks at PostgreSQL share: what a look is, how it asks, and the remedies that several of them name."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from bridge_service.checks.finding import TIMEOUT_SECONDS, Found
from bridge_service.machine.database import Connection, Row

_SQL_FOLDER: Final = Path(__file__).parent / "sql"

MIGRATE: Final = "run `python -m bridge_service migrate`"
MIGRATE_FOR: Final = f"{MIGRATE} as the schema's owner, with --runtime-role {{}}"
# DATABASE_URL more often names a wrong role, such as a reader, than a run-time role without rights.
ANOTHER_ROLE: Final = f"DATABASE_URL: name the run-time role, or {MIGRATE_FOR}"
VALIDATE: Final = "run `python -m bridge_service validate`, which finds out"
REPLAY: Final = "`replay --since` that moment for what was missed"
UNKNOWN: Final = "not known while the schema or a right is missing"


class Look(NamedTuple):
    """A look at PostgreSQL.

    Attributes:
      name: of its finding.
      find: looks.
      remedy: what to do if `find` raises.
    """

    name: str
    find: Callable[[Connection], Found]
    remedy: str


def connect(url: str) -> Connection:
    """Connect as `check` does."""
    return Connection(url, application="bridge check", seconds=TIMEOUT_SECONDS)


def row(connection: Connection, statement: str, *parameters: object) -> Row:
    """Return the one row of a statement."""
    [row] = connection.execute(statement, parameters, seconds=TIMEOUT_SECONDS)
    return row


def ask(connection: Connection, file: str, *parameters: object) -> list[Row]:
    """Return the rows of the statement in sql/`file`.sql."""
    # The planner overrates the cost of these catalog queries, and compiling them takes seconds.
    statement = "SET LOCAL jit = off; " + (_SQL_FOLDER / f"{file}.sql").read_text(encoding="utf-8")
    return connection.execute(statement, parameters, seconds=TIMEOUT_SECONDS)
