"""What is installed is pinned, the lock is that of the requirements, and updates are asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PINS = {
    file.name: dict(re.findall(r"^([\w.-]+)(?:\[\w,]+)?==([\w.]+)", file.read_text(encoding="utf-8"), re.MULTILINE))
    for file in sorted(ROOT.glob("requirements*.txt"))
}
UPDATES: list[dict[str, Any]] = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text(encoding="utf-8"))["updates"]


@pytest.mark.parametrize("name", PINS)
def test_every_requirement_has_one_version(name: str) -> None:
    """No line leaves it to the day of the installation which version that is."""
    lines = [
        line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if not line.startswith(("#", "-r"))
    ]

    assert len(lines) == len(PINS[name]) > 0


def test_the_tools_of_the_makefile_have_one_version() -> None:
    """What a target installs for itself is pinned, too."""
    tools = re.findall(r"\$\(PIP\) install (?!-r)(\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"))

    assert tools
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", tool) for tool in tools)


def test_the_lock_is_that_of_the_requirements() -> None:
    """After a change of requirements.txt somebody ran `make lock`: it has each of them, with hashes."""
    locked = dict(
        re.findall(r"^([\w.-]+)==([\w.]+)(?: ; [^\n]+?)? \\\n    --hash=sha256:[0-9a-f]{64}", LOCK, re.MULTILINE)
    )

    assert len(locked) == len(re.findall(r"^\w", LOCK, re.MULTILINE))
    assert PINS["requirements.txt"].items() <= locked.items()


@pytest.mark.parametrize(
    ("ecosystem", "file"), [("pip", "requirements.txt"), ("docker", "Dockerfile"), ("docker-compose", "compose.yaml")]
)
def test_updates_are_asked_for(ecosystem: str, file: str) -> None:
    """Whatever names versions is looked after."""
    assert (ROOT / file).exists()
    assert [update["directory"] for update in UPDATES if update["package-ecosystem"] == ecosystem] == ["/"]
