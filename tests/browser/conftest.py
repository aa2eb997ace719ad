"""One demo, and pages of a real browser that look at it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from bridge_service.machine.database import Connection
from tests.support.http import free_port
from tests.support.service import ROOT
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

CHROMIUM: Final = os.environ.get("CHROMIUM") or shutil.which("chromium") or "chromium"
QUIET: Final = (
    "--no-sandbox",  # Chromium refuses to run as root with it, and every page here is our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
VARIABLES: Final = {"GROUPING_DELAY": "1", "TYPING_SPEED_CPS": "60", "INITIATION_DELAY_MAX": "1"}
READY_SECONDS: Final = 120
TOUR_MS: Final = 120_000
PATIENCE_MS: Final = 90_000
PICTURES: Final = os.environ.get("PICTURES")
"""Where the pictures for the docs go; unset: none is taken."""

expect.set_options(timeout=PATIENCE_MS)


class Demo:
    """A demo that runs, and the page's address."""

    def __init__(self, port: int, output: Path, process: subprocess.Popen[bytes]) -> None:
        self.url = f"http://localhost:{port}/"
        self.port = port
        self._output = output
        self._process = process

    @property
    def said(self) -> str:
        """All that it wrote to its terminal."""
        return self._output.read_text(encoding="utf-8")

    @property
    def database_url(self) -> str:
        """The app's database, for its owner."""
        found = re.search(r"PostgreSQL +(postgresql://\S+)", self.said)
        assert found
        return found[1]

    def ask(self, statement: str, *parameters: object) -> Any:  # noqa: ANN401 - of any column
        """Run a statement as the owner of the app's tables; its first row's first column, if it has rows."""
        with closing(Connection(self.database_url, application="test")) as connection:
            return next(iter(next(iter(connection.execute(statement, parameters)), [None])))

    def frame(self, path: str) -> str:
        """Return the first frame of a stream: the whole state."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=20) as stream:  # noqa: S310 - http
            return str(next(line.decode() for line in stream if line.startswith(b"data: "))).removeprefix("data: ")


@contextmanager
def running(port: int | None = None, **variables: str) -> Iterator[Demo]:
    """Run a demo until its page is served, and end it as Ctrl-C does."""
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="bridge-browser-") as folder:
        Path(folder).chmod(0o755)  # as root, PostgreSQL runs as another user
        output = Path(folder) / "terminal"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                (sys.executable, "-m", "bridge_service", "demo"),
                cwd=ROOT,
                env={**os.environ, **VARIABLES, "PORT": str(port), "TMPDIR": folder, **variables},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        demo = Demo(port, output, process)
        try:
            eventually(lambda: "Playground: " in demo.said or process.poll() is not None, READY_SECONDS)
            assert "Playground: " in demo.said, demo.said
            demo.port = int(re.findall(r"Playground: http://localhost:(\d+)", demo.said)[0])
            demo.url = f"http://localhost:{demo.port}/"
            yield demo
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(READY_SECONDS)
            finally:
                process.kill()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Give a Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def demo(browser: Browser) -> Iterator[Demo]:
    """Give a demo whose tour is over."""
    with running() as demo:
        page = browser.new_page()
        page.goto(demo.url)
        page.click("#skip")
        expect(page.locator("#tour")).to_be_hidden(timeout=TOUR_MS)
        page.close()
        yield demo


class Tab:
    """A page, and what its console said."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._note)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def write(self, text: str, *, person: str | None = None, bot: str | None = None) -> None:
        """Write as a person to a bot."""
        if person:
            self.page.select_option("#person", person)
        if bot:
            self.page.select_option("#bot", bot)
        self.page.fill("#text", text)
        self.page.press("#text", "Enter")

    def press(self, name: str) -> None:
        """Press a button by what it does, or by what it breaks."""
        self.page.click(f"[data-do={name}], [data-break={name}]")

    def set(self, name: str, value: str) -> None:
        """Set one of the settings, and return when it holds."""
        with self.page.expect_response("**/act"):
            self.page.fill(f"[data-set={name}]", value)
            self.page.press(f"[data-set={name}]", "Enter")

    @contextmanager
    def slowly(self) -> Iterator[None]:
        """Let every step last so long in this block that a page on a busy machine sees it."""
        for name, value in (("grouping_delay", "3"), ("typing_speed_cps", "6")):
            self.set(name, value)
        yield
        for name in ("grouping_delay", "typing_speed_cps"):
            self.set(name, "")

    def number(self, name: str) -> int:
        """Return one of the five numbers at the top."""
        return int(self.page.locator(f"#sum-{name}").text_content() or "-1")

    def rest(self, sent: int) -> None:
        """Wait until so many messages in all were sent, each is answered, and none lost or answered twice."""
        expect(self.page.locator("#sum-sent")).to_have_text(str(sent))
        expect(self.page.locator("#sum-open")).to_have_text("0")
        assert (self.number("answered"), self.number("lost"), self.number("twice")) == (sent, 0, 0)


@contextmanager
def tab(browser: Browser, url: str, **options: Any) -> Iterator[Tab]:  # noqa: ANN401 - new_context takes anything
    """Open a page whose console has to stay silent."""
    context = browser.new_context(**{"locale": "en-US", "viewport": {"width": 1280, "height": 900}, **options})
    tab = Tab(context.new_page())
    tab.page.goto(url)
    expect(tab.page.locator("#sum-sent, .verdict")).not_to_have_text("–")
    yield tab
    context.close()
    assert tab.errors == []


def picture(page: Tab, name: str) -> None:
    """Take a picture for the docs, if they are wanted."""
    if PICTURES:
        page.page.screenshot(path=str(Path(PICTURES) / f"{name}.png"))
