"""Whose fault an SQLSTATE is. The list is sql/parts/blame.sql, which this module reads."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Final

_LIST: Final = Path(__file__).parent / "sql" / "parts" / "blame.sql"


class Blame(StrEnum):
    """Whose fault an error is; see blame.sql."""

    BUSY = "busy"
    UNAVAILABLE = "unavailable"
    INCOMPLETE = "incomplete"
    SCHEMA = "schema"
    ABSENT = "absent"
    RIGHTS = "rights"
    MISTAKE = "mistake"
    KEY = "key"
    TEXT = "text"
    TURN = "turn"
    APP = "app"


_RULES: Final = [
    (re.compile(pattern), Blame(whose))
    for pattern, whose in re.findall(r"WHEN p_state ~ '([^']+)' THEN '(\w+)'", _LIST.read_text(encoding="utf-8"))
]


def blame(state: str) -> Blame:
    """Say whose fault an SQLSTATE is, as `bridge.blame` does."""
    return next((whose for pattern, whose in _RULES if pattern.match(state)), Blame.APP)
