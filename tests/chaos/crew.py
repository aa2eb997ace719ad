"""The processes of the service and the platform that starts another one wherever one ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

import psutil

from tests.support.service import LogLine, ServiceProcess

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RESTART_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 0.1
STOP_SECONDS: Final = 12.0

Command = tuple[str, ...]

_TOLD: Final = re.compile(r"^\S+Z (DEBUG|INFO) |^\[[^]]+\] \[PID \d+\] .*\[(DEBUG|INFO)\]")
# The lines of the contract that tell of an outage, which come as often as there is something to tell; and what
# Dramatiq says when we kill a child of it.
_EXPECTED: Final = re.compile(
    r"⚠️ Tentative|⏳ Retry dans|🔄 Reconnexion|✅ Reconnexion|❌ Échec définitif|exited unexpectedly \(code -9\)"
)
_CHANGING: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+")
_TIME: Final = re.compile(r"^\S+Z |\[PID \d+\] ")
_ALARMING: Final = re.compile(
    r"Traceback|CRITICAL|unexpected error|unhandled exception|Exception in thread|Logging error|Fatal Python"
)


class Exit(NamedTuple):
    """A process that ended."""

    name: str
    at: float
    code: int


class Noise:
    """Counts what the processes say beyond the ordinary: per line with its numbers left out, and per second.

    Every line goes to a file for each process as well.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: Counter[str] = Counter()
        self.alarming: Counter[str] = Counter()
        self.total = 0
        self._seconds: Counter[tuple[str, str, int]] = Counter()
        self._lock = threading.Lock()

    def hear(self, line: LogLine) -> None:
        """Take a line; from any thread."""
        with self._lock:
            self.total += 1
            with (self.folder / f"{line.process}.log").open("a", encoding="utf-8") as file:
                file.write(f"{line.raw}\n")
            if _TOLD.match(line.raw) or _EXPECTED.search(line.raw):
                return
            shape = _CHANGING.sub("#", _TIME.sub("", line.raw))[:160]
            self.lines[shape] += 1
            if _ALARMING.search(line.raw):
                self.alarming[shape] += 1
            self._seconds[line.process, shape, int(time.time())] += 1

    def worst(self) -> list[tuple[int, str]]:
        """Return the most that any process said of a line in one second, for lines above one a second."""
        most: Counter[str] = Counter()
        with self._lock:
            for (_, shape, _), count in self._seconds.items():
                most[shape] = max(most[shape], count)
        return sorted(((count, shape) for shape, count in most.items() if count > 2), reverse=True)


class Crew:
    """Keeps one process of each role running, and more of them on demand.

    Parameters:
      commands: the roles and what starts them.
      environment: the processes' whole environment.
      noise: hears every line.
    """

    def __init__(self, commands: Mapping[str, Command], environment: Mapping[str, str], noise: Noise) -> None:
        self.exits: list[Exit] = []
        self._commands = dict(commands)
        self._environment = dict(environment)
        self.noise = noise
        self._posts: dict[str, ServiceProcess | None] = {}
        self._due: dict[str, float] = {}
        self._former: list[tuple[ServiceProcess, list[psutil.Process]]] = []
        self._numbers: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="platform", daemon=True)

    def start(self) -> None:
        """Start one of each role, and begin to watch them."""
        for role in self._commands:
            self.hire(role)
        self._thread.start()

    def hire(self, role: str) -> str:
        """Start one more of a role; returns its post."""
        with self._lock:
            post = role if role not in self._posts else f"{role}+"
            self._posts[post] = self._launch(post)
            return post

    def dismiss(self, post: str) -> None:
        """End a post with SIGTERM; nobody is started in its place."""
        with self._lock:
            process = self._posts.pop(post)
            self._due.pop(post, None)
        if process is not None:
            process.signal(signal.SIGTERM)
            self._await_end(process, time.monotonic() + STOP_SECONDS)

    def leader(self, role: str) -> int | None:
        """Return the pid of a role's process: the worker's parent, the scheduler itself."""
        with self._lock:
            process = self._posts.get(role)
            return None if process is None or process.exit_code is not None else process.pid

    def children(self, role: str) -> list[int]:
        """Return the pids of a role's children."""
        leader = self.leader(role)
        if leader is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(leader).children(recursive=True)]
        return []

    def everyone(self, role: str) -> list[int]:
        """Return the pids of a role: leader and children."""
        leader = self.leader(role)
        return [] if leader is None else [leader, *self.children(role)]

    def threads(self) -> dict[str, list[int]]:
        """Count the threads of each role's processes: the scheduler, the worker's children."""
        return {
            role: sorted(_threads(pid) for pid in (self.children(role) or self.everyone(role)))
            for role in self._commands
        }

    def bury(self) -> None:
        """Kill what ended processes left behind: the children of a parent that was killed."""
        with self._lock:
            former, self._former = self._former, []
        for process, orphans in former:
            for orphan in orphans:
                with contextlib.suppress(psutil.NoSuchProcess):
                    orphan.kill()
            process.wait()

    def stop(self) -> dict[str, int | None]:
        """End everybody with SIGTERM; returns the exit codes, None for who did not end within STOP_SECONDS."""
        self._stopping.set()
        self._thread.join()
        processes = {post: process for post, process in self._posts.items() if process is not None}
        for process in processes.values():
            process.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        codes = {post: self._await_end(process, deadline) for post, process in processes.items()}
        self.bury()
        return codes

    def _await_end(self, process: ServiceProcess, deadline: float) -> int | None:
        while process.exit_code is None and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        code = process.exit_code
        process.kill()
        return code

    def _launch(self, post: str) -> ServiceProcess:
        role = post.rstrip("+")
        self._numbers[role] += 1
        name = f"{role}.{self._numbers[role]}"
        return ServiceProcess(name, self._commands[role], self._environment, self.noise.hear)

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            with self._lock:
                for post, process in list(self._posts.items()):
                    if process is not None and process.exit_code is not None:
                        self.exits.append(Exit(process.name, time.time(), process.exit_code))
                        # Now, and not later by the number of their group: numbers are given out again.
                        self._former.append((process, _group(process.pid)))
                        self._posts[post] = None
                        self._due[post] = time.monotonic() + RESTART_SECONDS
                    elif process is None and time.monotonic() >= self._due[post]:
                        self._posts[post] = self._launch(post)


def send(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to processes, as far as they are there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _group(number: int) -> list[psutil.Process]:
    """Return the members of a process group."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == number:
                members.append(process)
    return members


def _threads(pid: int) -> int:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).num_threads()
    return 0
