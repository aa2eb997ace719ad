"""The processes of the Procfile, run by honcho as `make up` runs them, and their lines."""

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
    """Everything in the Procfile, as children of one runner.

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
        self._runner: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._family: set[psutil.Process] = set()
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read, name="lines", daemon=True)

    def start(self) -> None:
        """Start them and return without waiting until they are ready."""
        # No .env: its variables are for `make up`, and would replace the demo's own servers.
        options = ("--env", os.devnull, "--app-root", ROOT, "--procfile", "Procfile", "--port", "5000", "--no-colour")
        with self._output.open("ab") as output:
            self._runner = subprocess.Popen(
                (sys.executable, "-m", "honcho", "start", *options),
                cwd=ROOT,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C at the terminal goes to the demo alone, which ends them in order
            )
        self._guard = guard(self._runner.pid, signal.SIGTERM)
        self._reader.start()

    @property
    def running(self) -> bool:
        """Whether they run; if one of them ends, the runner ends all."""
        return self._runner is not None and self._runner.poll() is None

    def remember(self) -> None:
        """Note the runner's children, so that `stop` finds them even if the runner was killed."""
        if self._runner is not None:
            with suppress(psutil.NoSuchProcess):
                self._family.update(psutil.Process(self._runner.pid).children(recursive=True))

    def stop(self) -> None:
        """End them in order, and kill what is left after STOP_SECONDS; return after their last line."""
        if self._runner is None:
            return
        self.remember()
        if self.running:
            self._runner.terminate()
        try:
            self._runner.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.remember()
            self._runner.kill()
            self._runner.wait()
        for process in self._family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(self._family, STOP_SECONDS)
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
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
