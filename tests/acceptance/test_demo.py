"""`python -m bridge_service demo`, as a process of its own: it plays, it judges, and it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil
import pytest

from bridge_service.demo import show
from bridge_service.demo.scenes import Act, Scene
from tests.support.service import ROOT
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND: Final = (sys.executable, "-m", "bridge_service", "demo")
VARIABLES: Final = {"GROUPING_DELAY": "1", "TYPING_SPEED_CPS": "60", "INITIATION_DELAY_MAX": "1"}
EXPECTED: Final = (
    "✅ Connecté à PostgreSQL",
    "✅ Connecté à Redis",
    "👂 Démarrage écoute 'bot_events' et 'new_match'...",
    "✅ Écoute active",
    "✅ One message",
    "✅ A burst",
    "✅ While the bot types",
    "✅ A new match",
    "✅ Three messages",
    "✅ A human",
    "✅ At night",
    "✅ Who types",
    "✅ Redis away",
    "✅ All conversations",
    "📨 Notification reçue (pid=",
    "Payload: {",
    "Match ID: ",
    "⏰ Nouveau message, démarrage timer 1s",
    "🔄 Grouping: +1 message (3 total)",
    "📦 Grouping: 3 messages",
    "✅ Message poussé dans queue",
    "🔍 Nouveau match détecté",
    "💬 Initiation pour match ",
    "⚠️ Tentative 1/3 - Connexion Redis perdue: ",
    "⏳ Retry dans 1s...",
    "🔄 Reconnexion Redis...",
    "✅ Reconnexion Redis réussie",
)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a temporary folder of the demo's own, which has to be empty in the end."""
    with tempfile.TemporaryDirectory(prefix="bridge-demo-test-") as path:
        folder = Path(path)
        folder.chmod(0o755)  # as root, PostgreSQL runs as another user
        monkeypatch.setenv("TMPDIR", path)
        monkeypatch.setattr(tempfile, "tempdir", path)
        yield folder
        assert not list(folder.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_scene_comes_out_right(temporary: Path) -> None:
    """Without a terminal the demo plays all scenes in plain text, with the contract's lines, and ends with 0."""
    demo = subprocess.run(
        (*COMMAND, "--exit"),
        cwd=ROOT,
        env={**os.environ, **VARIABLES, "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=180,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout
    assert [line for line in EXPECTED if line not in demo.stdout] == []
    assert "Playground" not in demo.stdout  # --exit serves no page
    assert "\x1b" not in demo.stdout
    assert re.search(r"^Together +17 +\d+ +11 ", demo.stdout, re.MULTILINE), demo.stdout


@pytest.mark.slow
@pytest.mark.superuser  # the demo's own, of the server that it brings
def test_a_scene_that_goes_wrong_fails_the_demo(temporary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One scene whose line does not come makes the exit code 1 and is named with the line."""

    def play(act: Act) -> None:
        act.expect_lines("a line that nobody writes")

    right = Scene("Right", "nothing is expected", lambda _: None)
    scenes = (right, Scene("Wrong", "something is expected", play), right)
    assert show.run({**os.environ, **VARIABLES}, ends=True, scenes=scenes) == 1
    shown = capsys.readouterr().out
    assert "❌ Wrong: no line of the scheduler, or not in its place: a line that nobody writes" in shown
    assert shown.count("✅ Right") == 2
    assert "1 of 3 scenes went wrong." in shown
    assert temporary.is_dir()


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_behind(temporary: Path) -> None:
    """Ctrl-C in the middle of a scene stops every server and process, and the exit code says so."""
    output = temporary.parent / f"{temporary.name}.out"
    with output.open("wb") as stream:
        demo = subprocess.Popen(
            COMMAND,
            cwd=ROOT,
            env={**os.environ, **VARIABLES, "TMPDIR": str(temporary)},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: "⏰ Nouveau message" in output.read_text(encoding="utf-8"), 30)
        family = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 128 + signal.SIGINT
    finally:
        demo.kill()
        demo.wait()
        output.unlink()
    assert len(family) > 5
    eventually(lambda: not any(process.is_running() for process in family))
