"""The words of the pages, in both languages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from bridge_service import machine
from bridge_service.web.templates import _WORDS

REASONS: Final = (
    r"cancel_turn\([\w.]+, '(\w+)'",
    r"end_turn\([\w.]+, '\w+', '(\w+)'",
    r"(?<!'outcome', )'cancelled', '(?!dead)(\w+)'",
    r"reason (?:=|IS DISTINCT FROM) '(\w+)'",
)
"""Where SQL names the reason of a turn."""


@pytest.mark.parametrize(
    ("kind", "patterns", "among"),
    [("reason", REASONS, {"superseded", "silence", "left", "old"}), ("held", (r"cause := '(\w+)'",), {"limit_calls"})],
)
def test_each_cause_has_its_words(kind: str, patterns: tuple[str, ...], among: set[str]) -> None:
    """Why a turn ended without a reply, or is held, is a sentence of the pages, whatever SQL writes into it."""
    files = (Path(machine.__file__).parent / "sql").rglob("*.sql")
    sql = "".join(file.read_text(encoding="utf-8") for file in files)
    causes = {cause for pattern in patterns for cause in re.findall(pattern, sql)}
    assert among <= causes
    assert [cause for words in _WORDS.values() for cause in sorted(causes) if f"{kind}_{cause}" not in words] == []
