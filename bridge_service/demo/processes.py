"""The processes of the Procfile, each run by honcho as `make up` runs them, and their lines."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from bridge_service.demo.log import LogLine, parse
from bridge_service.demo.servers import guard

ROOT: Final = Path(__file__).parents[2]
STOP_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.02


class Processes:
    """Every process of the Procfile, as the child of a runner of its own, so that one can be killed alone.

    Parameters:
      environ: their environment.
      output: the file for their lines. Not a pipe: without a reader, the runner would block and not end its children.
      on_line: called with each line, from a second thread.
    """

    def __init__(self, environ: Mapping[str, str], output: Path, on_line: Callable[[LogLine], None]) -> None:
        beside_python = str(Path(sys.executable).parent)
        self._environ = {
            **environ,
            "PATH": os.pathsep.join(filter(None, (beside_python, environ.get("PATH")))),
            "PYTHONUNBUFFERED": "1",
            "PYTHONUTF8": "1",  # otherwise the runner writes in the locale's encoding, which may have no emoji
        }
        self._output = output
        self._on_line = on_line
        self._runners: dict[str, _Runner] = {}
        self._killed: set[str] = set()
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read, name="lines", daemon=True)

    def start(self) -> None:
        """Start them and return without waiting until they are ready."""
        lines = (ROOT / "Procfile").read_text(encoding="utf-8").splitlines()
        for name in [line.partition(":")[0] for line in lines if ":" in line]:
            self._runners[name] = _Runner(name, self._environ, self._output)
        self._reader.start()

    @property
    def running(self) -> bool:
        """Whether all of them run, except those that `kill` ended."""
        return bool(self._runners) and all(
            runner.running for name, runner in self._runners.items() if name not in self._killed
        )

    def remember(self) -> None:
        """Note the children of each runner, so that `stop` finds them even if the runner was killed."""
        for runner in self._runners.values():
            runner.remember()

    def kill(self, name: str) -> None:
        """Kill one with all its children by SIGKILL."""
        self._killed.add(name)
        self._runners[name].kill()

    def start_again(self, name: str) -> None:
        """Start what `kill` ended."""
        self._runners[name] = _Runner(name, self._environ, self._output)
        self._killed.discard(name)

    def freeze(self, name: str) -> None:
        """Stop one with all its children by SIGSTOP, in the middle of whatever they do."""
        self._runners[name].signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let what `freeze` stopped go on."""
        self._runners[name].signal(signal.SIGCONT)

    def stop(self) -> None:
        """End them in order, and kill what is left after STOP_SECONDS; return after their last line."""
        if not self._runners:
            return
        for runner in self._runners.values():
            runner.terminate()
        for runner in self._runners.values():
            runner.end()
        self._ended.set()
        self._reader.join()

    def _read(self) -> None:
        for raw in self._raw_lines():
            self._on_line(parse(raw))

    def _raw_lines(self) -> Iterator[str]:
        with self._output.open(encoding="utf-8", errors="replace") as output:
            begun = ""
            while True:
                ended = self._ended.is_set()
                while text := output.readline():
                    begun += text
                    if begun.endswith("\n"):
                        yield begun.rstrip("\n")
                        begun = ""
                if ended:
                    return
                self._ended.wait(POLL_SECONDS)


class _Runner:
    """One honcho with one process of the Procfile."""

    def __init__(self, name: str, environ: Mapping[str, str], output: Path) -> None:
        # No .env: its variables are for `make up`, and would replace the demo's own servers.
        options = ("--env", os.devnull, "--app-root", ROOT, "--procfile", "Procfile", "--port", "5000", "--no-colour")
        with output.open("ab") as lines:
            self._popen = subprocess.Popen(
                (sys.executable, "-m", "honcho", "start", *options, name),
                cwd=ROOT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=lines,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C at the terminal goes to the demo alone, which ends them in order
            )
        self._guard = guard(self._popen.pid, signal.SIGTERM)
        self._family: set[psutil.Process] = set()

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def remember(self) -> None:
        with suppress(psutil.NoSuchProcess):
            self._family.update(psutil.Process(self._popen.pid).children(recursive=True))

    def signal(self, number: signal.Signals) -> None:
        self.remember()
        for process in self._family:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self) -> None:
        self.remember()
        self._popen.kill()  # first, or it would see its child end and say so
        self.end()

    def terminate(self) -> None:
        self.remember()
        if self.running:
            self._popen.terminate()

    def end(self) -> None:
        """Wait for the end, for STOP_SECONDS; then kill what is left."""
        try:
            self._popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.remember()
            self._popen.kill()
            self._popen.wait()
        self.signal(signal.SIGKILL)
        psutil.wait_procs(self._family, STOP_SECONDS)
        self._guard.kill()
        self._guard.communicate()
