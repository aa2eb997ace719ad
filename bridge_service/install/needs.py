"""What the bridge needs of the app's tables, compared by the catalogs alone, for `migrate` and `check`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class that psycopg2 names as a function

from bridge_service.errors import DatabaseRefused, TablesUnfit
from bridge_service.install.files import APP_TABLES, template

UNMET: Final = template("unmet_needs")


class Unmet(NamedTuple):
    """Something that one of the app's tables lacks.

    Attributes:
      table: by the contract's name.
      users: the functions that use the column. `trigger` stands for the bridge's triggers.
      fault: None if the column is missing.
      place: in the order of the contract.
    """

    table: str
    column: str
    users: list[str]
    fault: str | None
    place: int


def parameters(tables: Mapping[str, str], replaced: Iterable[str]) -> tuple[list[str | None], list[str]]:
    """Return the parameters of UNMET.

    Parameters:
      tables: names of the app's tables, quoted and qualified, by the contract's names.
      replaced: functions of the adapter that the app replaced.
    """
    return [tables.get(name) for name in APP_TABLES], list(replaced)


def refuse_unmet(cursor: Cursor, tables: Mapping[str, str], replaced: Sequence[str]) -> None:
    """Refuse tables that the bridge cannot use.

    Raises:
      DatabaseRefused: names the missing columns of a table.
      TablesUnfit: a line for each type that the bridge cannot use.
    """
    cursor.execute(UNMET, parameters(tables, replaced))
    unmet = [Unmet(*row) for row in cursor.fetchall()]
    for table in APP_TABLES:
        if missing := sorted(each.column for each in unmet if each.table == table and each.fault is None):
            raise DatabaseRefused(f"the app's table `{table}` has no column {', '.join(missing)}")
    if unmet:
        raise TablesUnfit(*(each.fault for each in unmet if each.fault))
