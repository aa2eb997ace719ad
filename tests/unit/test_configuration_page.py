"""CONFIGURATION.md, .env.example and compose.yaml say what settings.py does, and COMMANDS.md what migrate lays."""

import re
from pathlib import Path

import pytest
import yaml

from bridge_service.errors import EX_CONFIG
from bridge_service.settings import VARIABLES, Variable

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "CONFIGURATION.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")


def test_the_table_of_the_page() -> None:
    """The page's table has a row for every variable, in order: names, default, what it accepts, meaning."""
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in PAGE.splitlines()
        if line.startswith("| `")
    ]

    assert rows == [
        (_names(variable), variable.default_text, variable.reader.accepts, variable.meaning) for variable in VARIABLES
    ]


def test_when_to_change_which() -> None:
    """The page says of every variable, once and in order, when to change it."""
    assert re.findall(r"^- `(\w+)`: ", PAGE, re.MULTILINE) == [variable.name for variable in VARIABLES]


def test_the_exit_code() -> None:
    """The page names the exit code that a wrong configuration ends with."""
    assert f"exit code {EX_CONFIG} (`EX_CONFIG`)" in PAGE


def test_the_variables_of_the_example() -> None:
    """The example file sets every variable once, and nothing that is not read."""
    names = re.findall(r"^#? ?([A-Z_]+)=", EXAMPLE, re.MULTILINE)

    assert sorted(names) == sorted(variable.name for variable in VARIABLES)


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.name)
def test_the_defaults_of_the_example(variable: Variable) -> None:
    """The example file shows each default, commented out; where there is none, nothing or a value that is accepted."""
    (comment, text), *_ = re.findall(rf"^(#? ?){variable.name}=(.*)$", EXAMPLE, re.MULTILINE)

    assert comment.startswith("#") or variable.required
    if variable.default:
        assert text == variable.default
    elif text:
        assert variable.reader.read(text) == text


def _names(variable: Variable) -> str:
    return f"`{variable.name}` (or `{variable.other_name}`)" if variable.other_name else f"`{variable.name}`"


def test_every_variable_reaches_the_containers() -> None:
    """compose.yaml hands on what .env says; where it says nothing, the variable is empty, which counts as unset."""
    handed_on = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["x-bridge"]["environment"]
    own = {"HOST", "PORT"}  # the console's container has its own
    assert set(handed_on) == {variable.name for variable in VARIABLES} - own
    assert all(value.startswith(f"${{{name}:-") for name, value in handed_on.items())
