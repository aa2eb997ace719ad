"""What several looks know of the installation: what was laid, where the app's tables are, which triggers are ours.

The run-time role reads no table of the bridge, so it asks `bridge.installed()`.
"""

from typing import NamedTuple

from bridge_service.checks.finding import TIMEOUT_SECONDS
from bridge_service.checks.look import ask
from bridge_service.errors import StepRefused
from bridge_service.install.files import APP_TABLES, TRIGGERS, TYPING_TABLE
from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import BoundTable, Ledger


class AppTable(NamedTuple):
    """One of the app's tables: its `name` in the functions, quoted and qualified; `oid` is None if it is not there."""

    oid: int | None
    name: str


class Trigger(NamedTuple):
    """One of the bridge's triggers.

    Attributes:
      name: quoted.
      table: quoted and qualified; `oid` is its identity.
      is_part: whether it belongs to a partition, made by the trigger of the partitioned table.
    """

    name: str
    table: str
    oid: int
    enabled: bool
    is_part: bool


def ledger(connection: Connection) -> Ledger:
    """Return the books, each call within the bound of a look."""
    return Ledger(connection, seconds=TIMEOUT_SECONDS)


def bound_tables(connection: Connection) -> dict[str, BoundTable]:
    """Return the tables that the installation is bound to, by the contract's names; none while that is not known."""
    try:
        tables = ledger(connection).installed().tables
    except StepRefused:
        return {}
    return {name: table for name, table in tables.items() if name in APP_TABLES}


def typing_table(connection: Connection) -> BoundTable | None:
    """Return the `typing_events` that the installation is bound to; None: it is bound to none."""
    return ledger(connection).installed().tables.get(TYPING_TABLE)


def replaced(connection: Connection) -> frozenset[str]:
    """Return the functions that are no longer as `migrate` laid them; none while that is not known."""
    try:
        return frozenset(ledger(connection).installed().changed)
    except StepRefused:
        return frozenset()


def app_tables(connection: Connection) -> dict[str, AppTable]:
    """Return the app's tables, by the contract's names.

    They are those that the installation is bound to. While that is not known, they are in the schema with the bridge's
    triggers, else where the search path of this role leads.
    """
    if bound := bound_tables(connection):
        return {
            name: AppTable(table.found if table.name is None else table.oid, table.laid_for)
            for name, table in bound.items()
        }
    return {name: AppTable(oid, table) for name, oid, table in ask(connection, "app_tables", list(APP_TABLES))}


def found_tables(connection: Connection) -> dict[str, AppTable]:
    """Return those of the app's tables that are there, by the contract's names."""
    return {name: table for name, table in app_tables(connection).items() if table.oid is not None}


def our_triggers(connection: Connection) -> list[Trigger]:
    """Return the bridge's triggers, on whichever tables they sit."""
    return [Trigger(*found) for found in ask(connection, "our_triggers", list(TRIGGERS))]
