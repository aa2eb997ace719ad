"""The playground of a real demo, used as its page uses it; tests/browser uses the page itself."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import pytest

from tests.support.http import free_port
from tests.support.service import ROOT
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLES: Final = {"GROUPING_DELAY": "1", "TYPING_SPEED_CPS": "60", "INITIATION_DELAY_MAX": "1"}
READY_SECONDS: Final = 60


class Page:
    """The page of a demo, as far as it talks to the server."""

    def __init__(self, url: str) -> None:
        self._url = url
        with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - http
            self._token = re.findall(r'data-token="([^"]+)"', answer.read().decode())[0]

    def act(self, **asked: str) -> dict[str, Any]:
        """Press a button."""
        headers = {"Origin": self._url.rstrip("/"), "X-CSRF-Token": self._token}
        request = urllib.request.Request(f"{self._url}act", json.dumps(asked).encode(), headers)  # noqa: S310 - http
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - http
            found: dict[str, Any] = json.load(answer)
            return found

    def state(self) -> Iterator[dict[str, Any]]:
        """Return what the stream says, one state or change after the other."""
        with urllib.request.urlopen(f"{self._url}live", timeout=60) as stream:  # noqa: S310 - http
            for line in stream:
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))

    def wait(self, **wanted: object) -> None:
        """Wait until the stream says this."""
        left = dict(wanted)
        for change in self.state():
            left = {name: value for name, value in left.items() if change.get(name, ...) != value}
            if not left:
                return


@pytest.mark.slow
def test_a_demo_that_ends_in_the_middle_of_a_fault_leaves_nothing_behind() -> None:
    """Ctrl-C while Redis is killed, the scheduler frozen, the worker dead and the model away ends every process."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bridge-demo-test-") as path:
        folder = Path(path)
        folder.chmod(0o755)  # as root, PostgreSQL runs as another user
        output = folder / "terminal"
        with output.open("wb") as stream:
            demo = subprocess.Popen(
                (sys.executable, "-m", "bridge_service", "demo"),
                cwd=ROOT,
                env={**os.environ, **VARIABLES, "PORT": str(port), "TMPDIR": path},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        try:
            eventually(lambda: f"http://localhost:{port}" in output.read_text(encoding="utf-8"), READY_SECONDS)
            page = Page(f"http://localhost:{port}/")
            page.act(action="skip")
            page.wait(scene=None)
            for what in ("redis", "scheduler", "worker", "model"):
                page.act(action="break", what=what)
            page.wait(redis=False)
            family = psutil.Process(demo.pid).children(recursive=True)
            demo.send_signal(signal.SIGINT)
            assert demo.wait(READY_SECONDS) == 0
        finally:
            demo.kill()
            demo.wait()
        assert len(family) > 3
        eventually(lambda: not any(process.is_running() for process in family))
        output.unlink()
        assert not list(folder.iterdir())
