"""The files through which the processes of one `dramatiq` show their numbers together.

Each process counts into its own files, in prometheus_client's multiprocess mode. The serving process reads all files. A
process writes each file full of zeros before it counts: on a full disk, a hole in a mapped file would kill the process
with SIGBUS. If no folder takes the files, the serving process shows its own numbers.

A folder belongs to one run of `dramatiq`. Each of its processes holds a shared lock on the folder's lock file, and the
kernel releases it when the process ends. A free lock means that all have ended; the next start removes the folder.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import struct
import tempfile
import time
from collections.abc import Iterable, Iterator
from multiprocessing import current_process
from pathlib import Path
from typing import Final

import prometheus_client.values
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

PREFIX: Final = "bridge-metrics-"
LOCK: Final = "lock"

SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - nothing in it has a name that can be guessed
"""Used if no folder for temporary files is writable, as in a container with a read-only root filesystem."""

FILE_BYTES: Final = 1 << 16
"""More than all numbers of one kind take. A file that prometheus_client lets grow has a hole."""

KINDS: Final = ("counter", "histogram", "gauge_max", "gauge_livemin")
"""One file each, as prometheus_client names them."""

TRIES: Final = 50
RETRY_SECONDS: Final = 0.01

_FOLDER: Final = re.compile(rf"{PREFIX}[0-9a-f]{{32}}")
_FILE: Final = re.compile(r"[a-z_]+_(\d{1,10})\.db")

_logger: Final = logging.getLogger("bridge.health")


class SharedNumbers(Collector):
    """The numbers of this process and of the other processes of its `dramatiq`.

    Parameters:
      serves: whether this is the process that shows them.
    """

    def __init__(self, *, serves: bool) -> None:
        self._serves = serves
        self._own = CollectorRegistry()
        self._places = list(_places())
        self._folder: Path | None = None
        self._lock: int | None = None
        self._told = False

    def begin(self) -> CollectorRegistry:
        """Choose where this process counts; return the registry in which its numbers have to be made."""
        if self._serves:
            for place in self._places:
                remove_dead(place)
        refusals = []
        for place in self._places:
            folder = place / _name()
            try:
                self._lock = _hold(folder)
                self._folder = folder
                self._reserve(folder)
            except OSError as error:
                refusals.append(f"{place}: {error.strerror or error}")
                self.close()
                with contextlib.suppress(OSError):
                    folder.rmdir()
                continue
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
            # The library reads that variable at its import, when the folder is not known yet.
            prometheus_client.values.ValueClass = prometheus_client.values.MultiProcessValue()  # type: ignore[no-untyped-call]
            return self._own
        # If every process is refused, the serving process alone says so.
        if self._serves or self._files():
            self._tell("; ".join(refusals) or "there is no folder for temporary files")
        return self._own

    def collect(self) -> Iterable[Metric]:
        """Return the sum of all processes, or this process's own numbers if its files are not there."""
        try:
            for _ in range(TRIES):
                files = self._files()
                if self._folder is None or not files.keys() >= _own_files():
                    break
                with contextlib.suppress(FileNotFoundError):  # another process has just ended
                    merged: Iterable[Metric] = MultiProcessCollector.merge(files.values())  # type: ignore[no-untyped-call]
                    return merged
            if self._folder is not None:
                self._tell(f"{self._folder}: its files were removed while the processes ran")
        except (OSError, RuntimeError, ValueError, struct.error) as error:
            self._tell(f"{self._folder}: {error}")
        return self._own.collect()

    def close(self) -> None:
        """Remove this process's files, and the folder after the last ones. A second call is harmless."""
        folder, lock = self._folder, self._lock
        self._folder = self._lock = None
        if folder is None or lock is None:
            return
        for name in _own_files():
            with contextlib.suppress(OSError):
                (folder / name).unlink()
        os.close(lock)
        _remove_if_dead(folder)  # the last process to end finds the lock free

    def _reserve(self, folder: Path) -> None:
        for name in _own_files():
            full = folder / f"{name}.new"  # a reader takes no unfinished file
            try:
                full.write_bytes(bytes(FILE_BYTES))
                full.rename(folder / name)
            except OSError:
                full.unlink(missing_ok=True)
                raise

    def _files(self) -> dict[str, str]:
        """Return the paths of all processes' files, by their names: two places may be the same folder."""
        return {file.name: str(file) for place in self._places for file in (place / _name()).glob("*.db")}

    def _tell(self, why: str) -> None:
        if self._told:
            return
        self._told = True
        what = "shows the numbers of this worker process only" if self._serves else "misses those of a worker process"
        _logger.warning("HEALTH_PORT %s, for no file can be shared (%s): set TMPDIR to a folder with space", what, why)


def remove_dead(place: Path) -> None:
    """Remove the folders in `place` that killed processes of this user left behind."""
    with contextlib.suppress(OSError):
        for folder in place.iterdir():
            if _FOLDER.fullmatch(folder.name):
                _remove_if_dead(folder)


def _places() -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):  # none can be written
        place = Path(tempfile.gettempdir())
        if place != Path.cwd():  # Python's last resort would be the checkout
            yield place
    yield Path(SHARED_MEMORY)


def _name() -> str:
    """Return the name of the folder that all children of one `dramatiq` share.

    It is made of the key that their parent drew for multiprocessing. So no older run has this name, and no other user
    can guess it and put a link there.
    """
    return PREFIX + hashlib.sha256(b"bridge metrics" + current_process().authkey).hexdigest()[:32]


def _own_files() -> set[str]:
    return {f"{kind}_{os.getpid()}.db" for kind in KINDS}


# Locks


def _hold(folder: Path) -> int:
    """Make the folder and return its lock file, locked as that of a living process.

    Raises:
      OSError: it cannot be made or locked.
    """
    for _ in range(TRIES):
        with contextlib.suppress(FileExistsError):  # not exist_ok, which raises if it is removed at that moment
            folder.mkdir(mode=0o700)
        with contextlib.suppress(BlockingIOError, FileNotFoundError), _opened(folder) as handle:
            return _locked(handle, fcntl.LOCK_SH)
        time.sleep(RETRY_SECONDS)  # another process has the lock, or has just removed the folder
    raise BlockingIOError(f"{folder} stays locked")


def _remove_if_dead(folder: Path) -> None:
    with contextlib.suppress(OSError), _opened(folder) as handle:
        names = os.listdir(handle)  # noqa: PTH208 - pathlib takes no descriptor
        if os.fstat(handle).st_uid != os.geteuid() or (LOCK not in names and any(map(_lives, names))):
            return
        lock = _locked(handle, fcntl.LOCK_EX)
        try:
            for name in names:
                if _FILE.fullmatch(name.removesuffix(".new")):
                    os.unlink(name, dir_fd=handle)
            os.unlink(LOCK, dir_fd=handle)  # last: a process that begins now makes a new one
            folder.rmdir()
        finally:
            os.close(lock)


def _lives(name: str) -> bool:
    """Tell whether the process that a file is named for lives; version 0.1.0 had no lock."""
    named = _FILE.fullmatch(name)
    if named is None:
        return False
    try:
        os.kill(int(named[1]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _locked(folder: int, how: int) -> int:
    """Lock the lock file of an open folder.

    Raises:
      BlockingIOError: another process has it.
    """
    with contextlib.ExitStack() as undo:
        lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        undo.callback(os.close, lock)
        fcntl.flock(lock, how | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(lock), os.stat(LOCK, dir_fd=folder)):
            raise BlockingIOError(f"{LOCK} was made again")
        undo.pop_all()
    return lock


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)
