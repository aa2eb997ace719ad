"""CONFIGURATION.md, .env.example and compose.yaml say what settings.py does, and COMMANDS.md what migrate lays."""

import re
from pathlib import Path

import pytest
import yaml

from bridge_service.errors import EX_CONFIG
from bridge_service.settings import Settings
from bridge_service.settings.pages import PAGES, VARIABLES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "CONFIGURATION.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_are_as_they_are_written(name: str) -> None:
    """`make docs` would change nothing: the table, the example file and the containers' environment are the fields'."""
    page = (ROOT / name).read_text(encoding="utf-8")

    assert PAGES[name](page) == page


@pytest.mark.parametrize("name", PAGES)
def test_a_page_that_was_changed_by_hand_is_written_anew(name: str) -> None:
    """A name changed by hand is what the test above finds."""
    page = (ROOT / name).read_text(encoding="utf-8")
    changed = page.replace("GROUPING_DELAY", "GROUPING", 1)

    assert changed != page
    assert PAGES[name](changed) == page


def test_when_to_change_which() -> None:
    """The page's advice names variables that exist, each once, in the order of the table."""
    advised = re.findall(r"^- `([A-Z_]+)`: ", PAGE, re.MULTILINE)

    assert advised
    assert advised == [variable.name for variable in VARIABLES if variable.name in advised]


def test_the_exit_code() -> None:
    """The page names the exit code that a wrong configuration ends with."""
    assert f"exit code {EX_CONFIG} (`EX_CONFIG`)" in " ".join(PAGE.split())


def test_the_example_is_accepted() -> None:
    """The example file has each variable once, under a comment of its own, and its values start the service."""
    blocks = re.findall(r"((?:^# .*\n)+)#([A-Z_]+)=(.*)\n", EXAMPLE, re.MULTILINE)

    assert [name for _, name, _ in blocks] == [variable.name for variable in VARIABLES]
    assert all(variable.meaning[:40] in comment for variable, (comment, _, _) in zip(VARIABLES, blocks, strict=True))
    assert Settings.from_environ({name: value for _, name, value in blocks})


def test_every_variable_reaches_the_containers() -> None:
    """compose.yaml hands on what .env says; where it says nothing, the variable is empty, which counts as unset."""
    handed_on = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["x-bridge"]["environment"]

    assert list(handed_on) == [variable.name for variable in VARIABLES]
    assert all(value.startswith(f"${{{name}:-") for name, value in handed_on.items())
    assert "${POSTGRES_CONNECTION_STRING:-" in handed_on["DATABASE_URL"]
