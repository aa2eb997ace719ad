"""The service as it runs in production: the processes of the Procfile, their environment, signals and log lines."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from signal import Signals
from threading import Condition, Thread
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import psutil

from bridge_service.demo.servers import guard
from bridge_service.settings.pages import VARIABLES
from tests.support.roles import ADMIN, OWNER, assert_not

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT: Final = Path(__file__).parents[2]
WAIT_SECONDS: Final = 15.0
STOP_SECONDS: Final = 10.0
"""The service promises 8 s; a busy machine gets two more before a stop is called a hang."""

SECOND: Final = 0.95
"""Lines are stamped a little after they were let pass."""

QUICK: Final = {
    "RESPONDER": "echo",
    "GROUPING_DELAY": "1",
    "THINKING_DELAY_MIN": "0",
    "THINKING_DELAY_MAX": "0",
    "TYPING_SPEED_CPS": "0",
    "INITIATION_PROBABILITY": "0",
}
"""The environment of most tests: replies that prove what they cover, in no time, and no first words."""

_NAMES: Final = {name for variable in VARIABLES for name in (variable.name, variable.other_name)}
_PREFIX: Final = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z [A-Z]+ [\w.]+: ")


class LogLine(NamedTuple):
    """One line that a process wrote: who, the whole line, and the line without time, level and logger."""

    process: str
    raw: str
    text: str


class ServiceProcess:
    """One scheduler, or one worker with its children, in a process group of its own."""

    def __init__(
        self, name: str, command: tuple[str, ...], environment: Mapping[str, str], heard: Callable[[LogLine], None]
    ) -> None:
        """Start it; `heard` is told of every line, from a thread."""
        self.name = name
        self._heard = heard
        self._popen = subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        # It waits for lost servers, and would for ever if a run of the tests is killed.
        self._guard = guard(self.pid, Signals.SIGTERM)
        self._reader = Thread(target=self._read, name=f"lines of {name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as lines:
            for line in lines:
                raw = line.rstrip("\n")
                self._heard(LogLine(self.name, raw, _PREFIX.sub("", raw, count=1)))

    @property
    def pid(self) -> int:
        """The process that was started; a worker's children are its children."""
        return self._popen.pid

    def children(self) -> list[psutil.Process]:
        """Return the living processes that it started."""
        return psutil.Process(self.pid).children(recursive=True)

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._popen.poll()

    def signal(self, number: Signals) -> None:
        """Send a signal as a platform does that signals one process."""
        self._popen.send_signal(number)

    def signal_all(self, number: Signals) -> None:
        """Send a signal as a platform does that signals the process and its children."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    def wait(self, timeout: float = STOP_SECONDS) -> int:
        """Wait for the end and for its last line; return the exit code.

        Raises:
          AssertionError: it did not end within `timeout` seconds; it is killed.
        """
        try:
            code = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end within {timeout:g} s") from None
        self._close()
        return code

    def kill(self) -> None:
        """End it and its children at once, in the middle of whatever they do."""
        self.signal_all(Signals.SIGKILL)
        self._popen.wait()
        self._close()

    def _close(self) -> None:
        self._reader.join()
        self._guard.kill()
        self._guard.communicate()


class Service:
    """Any number of schedulers and workers on one database and one Redis. Not thread-safe but for the lines.

        with Service({"DATABASE_URL": ..., "REDIS_URL": ..., **QUICK}) as service:
            service.up()
            service.wait_for_line("Message poussé")
            assert service.stop() == [0, 0]

    Leaving the block kills what still runs.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Take the variables that all processes get; no variable of the contract is inherited from the test's own."""
        inherited = {name: value for name, value in os.environ.items() if name not in _NAMES}
        self.environment = {**inherited, **environment}
        self.processes: list[ServiceProcess] = []
        self._started: Counter[str] = Counter()
        self._lines: list[LogLine] = []
        self._changed = Condition()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes[:]:
            self.kill(process)

    # Starting and stopping

    def start_scheduler(self, **environment: str) -> ServiceProcess:
        """Start one scheduler, with these variables beside the service's, and return at once."""
        return self.start("scheduler", (sys.executable, "-m", "schedulers"), **environment)

    def start_worker(self, *, processes: int = 1, threads: int = 4, **environment: str) -> ServiceProcess:
        """Start one worker, with these variables beside the service's, and return at once."""
        # The console script of the very environment that runs the tests, as the Procfile names it.
        dramatiq = str(Path(sys.executable).with_name("dramatiq"))
        sizes = ("--processes", str(processes), "--threads", str(threads))
        return self.start("worker", (dramatiq, "bridge_service", *sizes), **environment)

    def up(self, schedulers: int = 1, workers: int = 1) -> None:
        """Start so many of each and return once all of them are ready."""
        started = [self.start_scheduler() for _ in range(schedulers)] + [self.start_worker() for _ in range(workers)]
        for process in started:
            self.wait_until_ready(process)

    def wait_until_ready(self, process: ServiceProcess) -> None:
        """Return once a scheduler listens, or a worker has found PostgreSQL and Redis."""
        if process.name.startswith("scheduler"):
            self.wait_for_line("Écoute active", process=process)
        else:
            self.wait_for_line("Connecté à PostgreSQL", process=process)
            self.wait_for_line("Connecté à Redis", process=process)

    def stop(self, timeout: float = STOP_SECONDS) -> list[int]:
        """Send SIGTERM to every process that was started and not killed; return their exit codes in that order."""
        stopped, self.processes = self.processes, []
        for process in stopped:
            process.signal(Signals.SIGTERM)
        deadline = time.monotonic() + timeout
        failures: list[AssertionError] = []
        codes: list[int] = []
        for process in stopped:
            try:
                codes.append(process.wait(max(0.0, deadline - time.monotonic())))
            except AssertionError as error:
                failures.append(error)
        if failures:
            raise AssertionError("; ".join(map(str, failures)))
        return codes

    def kill(self, process: ServiceProcess) -> None:
        """End one process, a worker with its children, with SIGKILL."""
        self.processes.remove(process)
        process.kill()

    def start(self, role: str, command: tuple[str, ...], **environment: str) -> ServiceProcess:
        """Start a process of another command in a role, and return at once."""
        everything = {**self.environment, **environment}
        assert_not(everything.get("DATABASE_URL", ""), ADMIN, OWNER)
        self._started[role] += 1
        name = f"{role}.{self._started[role]}"
        process = ServiceProcess(name, command, everything, self._hear)
        self.processes.append(process)
        return process

    # Reading

    def _hear(self, line: LogLine) -> None:
        with self._changed:
            self._lines.append(line)
            self._changed.notify_all()

    def lines(self, pattern: str = "", *, process: ServiceProcess | None = None, after: int = 0) -> list[LogLine]:
        """Return the lines so far that contain a match of `pattern`, as `grep -E` would find them.

        Parameters:
          process: its lines only.
          after: what `mark` returned: later lines only.
        """
        with self._changed:
            lines = self._lines[after:]
        return [
            line for line in lines if re.search(pattern, line.raw) and (process is None or line.process == process.name)
        ]

    def texts(self, pattern: str = "", *, process: ServiceProcess | None = None, after: int = 0) -> list[str]:
        """As `lines`; the lines without time, level and logger."""
        return [line.text for line in self.lines(pattern, process=process, after=after)]

    def assert_at_most_once_a_second(self, pattern: str, process: ServiceProcess) -> None:
        """Check that a process does not repeat a line faster than once a second."""
        told = [datetime.fromisoformat(line.raw.split(" ")[0]) for line in self.lines(pattern, process=process)]
        gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(told)]
        assert all(gap > SECOND for gap in gaps), gaps

    def mark(self) -> int:
        """Return the present moment, for `after`."""
        with self._changed:
            return len(self._lines)

    def wait_for_line(
        self,
        pattern: str,
        *,
        count: int = 1,
        timeout: float = WAIT_SECONDS,
        process: ServiceProcess | None = None,
        after: int = 0,
    ) -> list[LogLine]:
        """Return the lines that match as soon as there are `count` of them.

        Raises:
          AssertionError: there were not within `timeout` seconds; it shows the last lines.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while len(found := self.lines(pattern, process=process, after=after)) < count:
                if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                    last = "\n".join(f"  {line.process}: {line.raw}" for line in self._lines[-40:])
                    raise AssertionError(
                        f"{len(found)} of {count} lines with {pattern!r} within {timeout:g} s; the last lines:\n{last}"
                    )
        return found
