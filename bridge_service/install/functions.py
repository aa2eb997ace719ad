"""The functions: each is laid again whenever its file changes. A function that the app replaced is left alone."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class that psycopg2 names as a function

from bridge_service.install.files import FUNCTION_FOLDERS, TEMPLATES, definition, digest, sql_files, template
from bridge_service.install.report import Report
from bridge_service.install.transaction import value

_EARLIER: Final = TEMPLATES / "earlier_bodies.txt"

_UNKNOWN_SOURCE: Final = "replaced before the restore"
"""The digest in `laid_functions` of a function that the app replaced before its database was restored."""


class _Found(NamedTuple):
    """A function in the schema, as found_functions.sql returns it."""

    source: str
    mark: str | None
    body: str
    public: bool


def functions(cursor: Cursor, app: Mapping[str, str], report: Report) -> Iterator[str]:
    """Yield the statements that lay what is new or changed.

    Parameters:
      app: the app's tables, quoted and qualified, by the contract's names.
    """
    laid: dict[str, tuple[str, str]] = {}
    cursor.execute("SELECT to_regclass('bridge.laid_functions') IS NOT NULL")
    if value(cursor):
        cursor.execute("SELECT name, digest, source FROM bridge.laid_functions")
        laid = {name: (digest, source) for name, digest, source in cursor.fetchall()}
    cursor.execute(template("found_functions"))
    there = {name: _Found(*found) for name, *found in cursor.fetchall()}
    for folder in FUNCTION_FOLDERS:
        for file in sql_files(folder):
            name, text, found = file.stem, definition(file, app), there.get(file.stem)
            new = digest(text)
            replaced = found is not None and name in laid and found.source != laid[name][1]
            adapter = folder == "app"
            if adapter and found is not None and name not in laid and not _is_ours(file, app, found):
                replaced = True
                yield template("note_replaced", name=name, digest=new, source=_UNKNOWN_SOURCE)
            if adapter and replaced:
                report.kept.append(name)
            elif name not in laid or laid[name][0] != new or replaced or found is None:
                report.functions.append(name)
                yield text if found is None else template("replace_function", name=name, definition=text.strip())
                yield f"REVOKE ALL ON FUNCTION bridge.{name} FROM PUBLIC"
                yield template("note_function", name=name, digest=new)
                if adapter:
                    yield template("mark_function", name=name)
            elif found.public:
                yield f"REVOKE ALL ON FUNCTION bridge.{name} FROM PUBLIC"


def _is_ours(file: Path, app: Mapping[str, str], found: _Found) -> bool:
    """Tell whether a function of the adapter that `laid_functions` does not name is as some release laid it.

    A dump of the schema alone leaves out the rows of `laid_functions`.
    """
    body = found.body
    for table, name in app.items():
        body = body.replace(f" {name}", f" {{app}}.{table}")
    known = f"{file.stem} {hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()}"
    return (
        found.mark == found.source
        or body == file.read_text(encoding="utf-8").split("$$")[1]
        or known in _EARLIER.read_text(encoding="utf-8").splitlines()
    )
