"""What this release lays: the files of machine/sql, the triggers, and the statements of install/sql."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SQL_FOLDER: Final = Path(__file__).parents[1] / "machine" / "sql"
TEMPLATES: Final = Path(__file__).parent / "sql"

_CALLED: Final = ("steps", "policy", "operate", "upkeep")
"""Folders of the functions that the run-time role calls."""

FUNCTION_FOLDERS: Final = ("parts", "app", "capture", *_CALLED)

APP_TABLES: Final = ("profiles", "matches", "messages")
TYPING_TABLE: Final = "typing_events"
"""A table that the app may lack: the people and bots that type now."""

TRIGGERS: Final = {
    "bridge_before_message": "BEFORE INSERT ON {messages} FOR EACH ROW EXECUTE FUNCTION bridge.before_message()",
    "bridge_after_message": "AFTER INSERT ON {messages} FOR EACH ROW EXECUTE FUNCTION bridge.after_message()",
    "bridge_after_edit": "AFTER UPDATE OF content ON {messages} FOR EACH ROW"
    " WHEN (OLD.content::text IS DISTINCT FROM NEW.content::text) EXECUTE FUNCTION bridge.after_change()",
    "bridge_after_delete": "AFTER DELETE ON {messages} FOR EACH ROW EXECUTE FUNCTION bridge.after_change()",
    "bridge_after_match": "AFTER INSERT ON {matches} FOR EACH ROW EXECUTE FUNCTION bridge.after_match()",
}
EDIT_TRIGGER: Final = "bridge_after_edit"
"""The trigger that a table without a column `content` cannot have: its app calls `bridge.capture_change` itself."""

HAS_CONTENT: Final = (
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute"
    " WHERE attrelid = %s::regclass AND attname = 'content' AND NOT attisdropped)"
)
"""Whether a table can have EDIT_TRIGGER."""


def sql_files(folder: str) -> list[Path]:
    """Return the files of a folder of the machine, by name."""
    return sorted((SQL_FOLDER / folder).glob("*.sql"))


def template(file: str, /, **values: str) -> str:
    """Return a statement of install/sql with its {places} filled in."""
    text = (TEMPLATES / f"{file}.sql").read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", value)
    return text


def definition(file: Path, app: Mapping[str, str]) -> str:
    """Return a function's definition with the names of the app's tables in it.

    Where the app has no TYPING_TABLE, its place names a table that is never there, and no function comes to read it.
    """
    text = file.read_text(encoding="utf-8")
    for table, name in app.items():
        text = text.replace(f"{{app}}.{table}", name)
    text = text.replace(f"{{has {TYPING_TABLE}}}", "true" if TYPING_TABLE in app else "false")
    return text.replace(f"{{app}}.{TYPING_TABLE}", f"bridge.{TYPING_TABLE}")


def digest(text: str) -> str:
    """Return what `bridge.laid_functions` notes of a definition."""
    return hashlib.sha256(text.encode()).hexdigest()


def digests(app: Mapping[str, str]) -> dict[str, str]:
    """Return the digest of each function's definition, by the function's name.

    Parameters:
      app: the app's tables, quoted and qualified, by the contract's names.
    """
    return {file.stem: digest(definition(file, app)) for folder in FUNCTION_FOLDERS for file in sql_files(folder)}


def adapter() -> list[str]:
    """Return the names of the functions that an app with other tables may replace."""
    return [file.stem for file in sql_files("app")]


def steps() -> list[str]:
    """Return the names of the functions that the run-time role has to be allowed to call."""
    return sorted(file.stem for folder in _CALLED for file in sql_files(folder))
