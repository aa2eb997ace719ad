"""What a restore left of an installation: which migrations are in the schema, and which functions are the bridge's own.

A dump of the schema alone holds no row, so it lacks what `migrate` notes: the migrations that ran, and the functions as
they were laid. Both are told by what the schema itself holds.
"""

import hashlib
from pathlib import Path
from typing import Final

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class that psycopg2 names as a function

_EARLIER: Final = Path(__file__).parent / "sql" / "earlier_bodies.txt"

_FOUND_BY: Final = "-- Found by: "
"""Begins the first line of a migration: an expression that is true once the migration has run."""

UNKNOWN_SOURCE: Final = "replaced before the restore"
"""Stands in `laid_functions` for the digest of a function that the app replaced in an earlier life of the schema."""


def last_found(cursor: Cursor, files: list[Path]) -> int:
    """Return how many of these migrations, from the first on, the schema holds by the look of it."""
    found = 0
    for count, file in enumerate(files, start=1):
        probe = found_by(file)
        if probe:
            cursor.execute(f"SELECT {probe}")
            [[there]] = cursor.fetchall()
            found = count if there else found
    return found


def found_by(file: Path) -> str | None:
    """Return the expression by which a migration is found; None if its file names none."""
    line = file.read_text(encoding="utf-8").partition("\n")[0]
    return line.removeprefix(_FOUND_BY) if line.startswith(_FOUND_BY) else None


def is_ours(name: str, text: str, *, digest: str, mark: str | None, source: str) -> bool:
    """Tell whether a function of the adapter is as some release laid it, where no row of `laid_functions` says so.

    Parameters:
      text: of the file from which this release lays it.
      digest, mark, source: of the function that is there, as installer/found_functions.sql returns them.
    """
    body = hashlib.md5(source.encode(), usedforsecurity=False).hexdigest()
    known = _EARLIER.read_text(encoding="utf-8").splitlines()
    return mark == digest or source == text.split("$$")[1] or f"{name} {body}" in known
