"""docs/RULES.md defines every rule that is cited, docs/SECURITY.md every threat; each names a test that is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
RULES: Final = (ROOT / "docs" / "RULES.md").read_text(encoding="utf-8")
THREATS: Final = (ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")

CODE: Final = re.compile(r"\b(?:[ABCDEFHLMPQRTX][0-9]{1,2}|I[1-7]|I-1|S(?:[1-9]|1[0-9]|2[0-5]))\b")
CITING: Final = ("bridge_service", "schedulers", "tests", "docs")
SUFFIXES: Final = {".py", ".sql", ".lua", ".md"}
NOT_MET: Final = {"S16"}
"""The threat that this version does not meet, as the page says."""


def _defined() -> dict[str, str]:
    """Return the text of each rule and promise by its code."""
    rules = re.findall(r"^### ([A-Z]-?[0-9]+) (.*?)(?=^#|\Z)", RULES, re.MULTILINE | re.DOTALL)
    promises = re.findall(r"^- \*\*(I[0-9]) (.*)$", RULES, re.MULTILINE)
    return {**dict(rules), **dict(promises)}


def _threats() -> dict[str, str]:
    return dict(re.findall(r"^\| (S[0-9]+) \| (.*) \|$", THREATS, re.MULTILINE))


def _cited() -> dict[str, set[str]]:
    """Return the files that cite each code."""
    cited: dict[str, set[str]] = {}
    for path in (p for folder in CITING for p in (ROOT / folder).rglob("*") if p.suffix in SUFFIXES):
        text = path.read_text(encoding="utf-8")
        named = re.findall(r"\bdef test_([A-Z][0-9]+)_", text)
        comments = text if path.suffix == ".md" else "\n".join(_prose(text, path.suffix))
        for code in {*named, *CODE.findall(comments)}:
            cited.setdefault(code, set()).add(str(path.relative_to(ROOT)))
    return cited


def _prose(text: str, suffix: str) -> list[str]:
    """Return what a reader reads: comments and docstrings, not the values of a program."""
    if suffix == ".py":
        return [*re.findall(r"#(.*)$", text, re.MULTILINE), *re.findall(r'"""(.*?)"""', text, re.DOTALL)]
    return re.findall(r"--(.*)$", text, re.MULTILINE)


def _tests() -> set[str]:
    return {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"\bdef (test_\w+)", path.read_text(encoding="utf-8"))
    }


def test_every_code_that_is_cited_is_defined() -> None:
    """A reader who meets `T6` or `S12` finds it on one of the two pages."""
    known = _defined().keys() | _threats().keys()
    unknown = {code: sorted(files) for code, files in _cited().items() if code not in known}
    assert not unknown


@pytest.mark.parametrize("rule", sorted(code for code in _defined() if not re.fullmatch("I[0-9]", code)))
def test_every_rule_names_a_test_of_its_own(rule: str) -> None:
    """The test that a rule names bears the rule's code, and is there."""
    named = re.findall(r"`(test_\w+)`", _defined()[rule])
    assert named
    for name in named:
        assert name.startswith(f"test_{rule.replace('-', '_')}_")
        assert name in _tests()


def test_every_threat_is_defined_and_names_tests() -> None:
    """S1 to S25 are all there, and each that is met names tests that are there."""
    threats = _threats()
    assert set(threats) == {f"S{number}" for number in range(1, 26)}
    for code, text in threats.items():
        named = re.findall(r"::(test_\w+)`", text)
        assert bool(named) == (code not in NOT_MET), code
        assert set(named) <= _tests(), code
