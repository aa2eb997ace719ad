"""Several worker processes under one `dramatiq` show their numbers together, on one port, whatever the disk does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bridge_service.version import VERSION
from tests.support.http import ask, free_port, samples
from tests.support.service import Service, ServiceProcess
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSES = 2
DRAMATIQ = (
    str(Path(sys.executable).with_name("dramatiq")),
    "tests.support.measured_worker:broker",
    "--processes",
    str(PROCESSES),
    "--threads",
    "1",
)
ALONE = "shows the numbers of this worker process only"


def shown(port: int) -> dict[str, float]:
    """Return what the worker shows; nothing while it does not listen yet."""
    try:
        return samples(ask(port, "/metrics").body)
    except OSError:
        return {}


def until_replied(port: int, replies: int = PROCESSES) -> None:
    """Return once the worker shows so many replies."""

    def check() -> None:
        numbers = shown(port)
        assert numbers.get("bridge_replies_total") == replies, numbers

    eventually(check, timeout=30)


@contextmanager
def worker(
    folder: Path | str, command: tuple[str, ...] = DRAMATIQ, **environment: str
) -> Iterator[tuple[Service, ServiceProcess, int]]:
    """Run a worker of two processes whose folder for temporary files is this."""
    port = free_port()
    with Service({"HEALTH_PORT": str(port), "TMPDIR": str(folder), **environment}) as service:
        yield service, service.start("worker", command), port


def folders(place: Path) -> list[Path]:
    """Return the folders of numbers that lie in a place."""
    return sorted(place.glob("bridge-metrics-*"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder for temporary files of the processes."""
    return tmp_path_factory.mktemp("worker")


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    """Give the port of a worker of two processes that have done their work; it has to end well afterwards."""
    with worker(folder) as (service, _, port):
        until_replied(port)
        yield port
        assert service.stop() == [0]
        assert not service.lines("WARNING")
    assert folders(folder) == [], "the files outlived an orderly end"


def test_the_sum_of_all_processes(port: int) -> None:
    """Counters and histograms are the sum of what all processes counted."""
    numbers = shown(port)

    assert numbers["bridge_replies_total"] == PROCESSES
    assert numbers["bridge_messages_answered_total"] == 3 * PROCESSES
    assert numbers["bridge_reply_lateness_seconds_count"] == PROCESSES
    assert numbers["bridge_responder_duration_seconds_count"] == PROCESSES


def test_one_series_for_all_processes(port: int) -> None:
    """No series names a process, a host or a conversation, and the loop that is furthest behind stands for all."""
    text = ask(port, "/metrics").body
    numbers = samples(text)

    assert "pid=" not in text
    assert numbers[f'bridge_build_info{{version="{VERSION}"}}'] == 1
    assert "de31323b" not in text
    assert [name for name in numbers if name.startswith("bridge_loop_last_success")] == [
        'bridge_loop_last_success_timestamp_seconds{loop="tick"}'
    ]


def test_the_files_are_the_services_own(port: int, folder: Path) -> None:
    """The files in which the processes count lie in one folder that no other user may enter."""
    del port
    [shared] = folders(folder)

    assert shared.stat().st_mode & 0o777 == 0o700
    assert len(list(shared.glob("counter_*.db"))) == PROCESSES


def test_no_file_grows_or_has_a_hole(port: int, folder: Path) -> None:
    """Every file that is written while the process works was made whole at its start: a full disk kills no process."""
    del port
    [shared] = folders(folder)
    files = list(shared.glob("*.db"))

    assert {file.name.rpartition("_")[0] for file in files} == {"counter", "histogram", "gauge_max", "gauge_livemin"}
    for file in files:
        used = int.from_bytes(file.read_bytes()[:4], sys.byteorder)
        assert file.stat().st_size == 1 << 16
        assert file.stat().st_blocks * 512 >= file.stat().st_size
        assert used < file.stat().st_size / 2, "room for metrics to come"


# --- What a killed worker leaves -----------------------------------------------------------------


def test_the_next_start_removes_what_a_killed_worker_left(tmp_path: Path) -> None:
    """The folder of a killed worker goes with the next start; that of a living one stays, and so does all else."""
    with worker(tmp_path) as (service, process, port):
        until_replied(port)
        service.kill(process)
    [left] = folders(tmp_path)
    foreign = tmp_path / "bridge-metrics-of-mine"
    foreign.mkdir()
    (tmp_path / f"bridge-metrics-{'0' * 32}").symlink_to(foreign)

    with worker(tmp_path) as (_, _, living):
        until_replied(living)
        assert not left.exists()
        before = folders(tmp_path)
        with worker(tmp_path) as (service, _, port):
            until_replied(port)
            assert set(before) < set(folders(tmp_path))
            assert service.stop() == [0]
        assert folders(tmp_path) == before
        until_replied(living)
    assert foreign.exists()


# --- Where there is no room ----------------------------------------------------------------------


@pytest.fixture
def below_a_file(tmp_path: Path) -> str:
    """Give a path at which nothing can be made, not even by root."""
    file = tmp_path / "file"
    file.touch()
    return str(file / "folder")


@pytest.mark.parametrize("kind", ["missing", "below a file", "shared memory by another name"])
def test_a_tmpdir_that_cannot_be_used(kind: str, tmp_path: Path, below_a_file: str) -> None:
    """A TMPDIR that is missing or no folder costs nothing, and files that are found by two ways count once."""
    tmpdir = below_a_file if kind == "below a file" else str(tmp_path / "tmpdir")
    if kind == "shared memory by another name":
        Path(tmpdir).symlink_to(tmp_path)
    with worker(tmpdir, NO_SHARED_MEMORY=str(tmp_path)) as (service, _, port):
        until_replied(port)
        assert service.stop() == [0]
        assert not service.lines("WARNING|ERROR|CRITICAL")


def needs_mounts() -> pytest.MarkDecorator:
    """Skip a test where this user may mount nothing."""
    unshare = shutil.which("unshare")
    may = unshare and not subprocess.run([unshare, "-m", "true"], capture_output=True, check=False).returncode
    return pytest.mark.skipif(not may, reason="this user may not mount")


def mounted(*script: str) -> tuple[str, ...]:
    """Return a command that runs the worker after a script, with mounts of its own."""
    command = " && ".join([*script, 'exec "$@"'])
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", command, "sh", *DRAMATIQ)


READ_ONLY = (
    "mount --rbind / / && mount -o remount,bind,ro /",
    "for each in /tmp /var/tmp; do mount --bind $each $each && mount -o remount,bind,ro $each; done",
)


@needs_mounts()
def test_a_read_only_filesystem(tmp_path: Path) -> None:
    """As in a container whose root is read-only, the processes share their numbers in /dev/shm."""
    memory = f"mount -t tmpfs -o size=4m none {tmp_path} && mount --bind {tmp_path} /dev/shm"
    with worker("", mounted(*READ_ONLY, memory)) as (service, process, port):
        until_replied(port)
        assert folders(Path("/proc", str(process.pid), "root", "dev", "shm"))
        assert service.stop() == [0]
        assert not service.lines("WARNING|ERROR|CRITICAL")


@needs_mounts()
def test_a_filesystem_that_takes_nothing(below_a_file: str) -> None:
    """Where nothing can be written the port shows the numbers of one process, and one line says so."""
    with worker("", mounted(*READ_ONLY), NO_SHARED_MEMORY=below_a_file) as (service, _, port):
        until_replied(port, 1)
        assert ask(port, "/health/ready").body == "ready\n"
        [line] = service.wait_for_line(ALONE)
        assert "HEALTH_PORT" in line.raw
        assert "TMPDIR" in line.raw
        assert service.stop() == [0]
        assert len(service.lines("HEALTH_PORT")) == 1
        assert not service.lines("ERROR|CRITICAL|Traceback")


@needs_mounts()
@pytest.mark.parametrize("free", [100, 400], ids=lambda free: f"{free} KiB")
def test_a_disk_that_is_full(tmp_path: Path, below_a_file: str, free: int) -> None:
    """On a disk that is nearly full, and full soon after, no process dies; a line says whose numbers are missing."""
    disk = tmp_path / "disk"
    disk.mkdir()
    fill = f"mount -t tmpfs -o size=1m none {disk} && head -c {1024 - free}K /dev/zero > {disk}/full"
    with worker(disk, mounted(fill), NO_SHARED_MEMORY=below_a_file) as (service, process, port):
        eventually(lambda: shown(port).get("bridge_replies_total", 0) >= 1, timeout=30)
        [line] = service.wait_for_line(f"{ALONE}|misses those of a worker process", count=1)
        assert "No space left on device" in line.raw
        with Path(f"/proc/{process.pid}/root{disk}/more").open("wb", buffering=0) as more, suppress(OSError):
            while True:  # until the disk is full
                more.write(bytes(4096))

        for _ in range(20):
            assert shown(port)["bridge_replies_total"] >= 1
        assert service.stop() == [0]
        assert not service.lines("ERROR|CRITICAL|Traceback")


def test_files_that_are_removed_while_the_processes_run(tmp_path: Path) -> None:
    """If a cleaner of temporary files removes them, the port shows the numbers of one process, and says so once."""
    with worker(tmp_path) as (service, _, port):
        until_replied(port)
        [shared] = folders(tmp_path)
        shutil.rmtree(shared)

        until_replied(port, 1)
        until_replied(port, 1)
        assert service.stop() == [0]
        assert len(service.lines(ALONE)) == 1


def test_without_the_port_no_web_server_is_imported() -> None:
    """Scheduler and worker without HEALTH_PORT do without the memory of a web server."""
    script = (
        "import sys, schedulers.__main__, bridge_service.worker.process\n"
        "print(sorted({'starlette', 'uvicorn', 'h11', 'anyio'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": "/nowhere"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
