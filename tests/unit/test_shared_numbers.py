"""The folders of numbers: those of dead processes go, those of living processes stay, whatever happens at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from bridge_service.web import shared_numbers
from bridge_service.web.shared_numbers import PREFIX, remove_dead

if TYPE_CHECKING:
    from pathlib import Path


def test_no_living_process_loses_a_file(tmp_path: Path) -> None:
    """While many begin, end and look for dead folders in the same place, no file of a living one is removed."""
    lost: list[str] = []

    def live(number: int) -> None:
        for turn in range(100):
            folder = tmp_path / f"{PREFIX}{(number + turn) % 3:032x}"
            lock = shared_numbers._hold(folder)
            file = folder / f"counter_{number}.db"
            file.touch()
            remove_dead(tmp_path)
            if not file.exists():
                lost.append(file.name)
            file.unlink(missing_ok=True)
            os.close(lock)
            shared_numbers._remove_if_dead(folder)

    threads = [threading.Thread(target=live, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert lost == []
    remove_dead(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def dead() -> int:
    """Give the id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("lives", [True, False])
def test_a_folder_without_a_lock(tmp_path: Path, dead: int, *, lives: bool) -> None:
    """A folder of version 0.1.0 is judged by the processes that its files are named for, as a deployment overlaps."""
    folder = tmp_path / f"{PREFIX}{'a' * 32}"
    folder.mkdir()
    (folder / f"gauge_livemin_{os.getpid() if lives else dead}.db").touch()
    (folder / f"counter_{dead}.db").touch()

    remove_dead(tmp_path)

    assert folder.exists() == lives


def test_what_is_not_ours_stays(tmp_path: Path, dead: int) -> None:
    """Links, other names and files that the service does not make are left alone."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / f"counter_{dead}.db").touch()
    (tmp_path / f"{PREFIX}{'b' * 32}").symlink_to(elsewhere)
    (tmp_path / f"{PREFIX}short").mkdir()
    foreign = tmp_path / f"{PREFIX}{'c' * 32}"
    foreign.mkdir()
    (foreign / "notes.txt").touch()

    remove_dead(tmp_path)

    assert (elsewhere / f"counter_{dead}.db").exists()
    assert (tmp_path / f"{PREFIX}short").exists()
    assert (foreign / "notes.txt").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_the_folder_of_another_user_stays(tmp_path: Path, dead: int) -> None:
    """Another user's folder is left alone, even by root."""
    folder = tmp_path / f"{PREFIX}{'d' * 32}"
    folder.mkdir()
    (folder / f"counter_{dead}.db").touch()
    os.chown(folder, 12345, 12345)

    remove_dead(tmp_path)

    assert (folder / f"counter_{dead}.db").exists()


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    """Looking for dead folders where there is nothing raises nothing."""
    remove_dead(tmp_path / "nowhere")
