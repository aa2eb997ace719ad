"""What the demo shows: the processes' lines, the conversations, verdicts, and the closing table."""

import io
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from bridge_service.demo.log import LogLine
from bridge_service.telemetry.logs import escape

try:
    import readline
except ImportError:  # a Python that was built without it
    readline = None  # type: ignore[assignment]

_WIDTH_OF_A_PIPE: Final = 120
_CLEAR_LINE: Final = "\r\x1b[2K"
_WHO: Final = 23
"""Columns of time and process, before what is said."""

_STYLES: Final = {
    "✅": "green",
    "❌": "bold red",
    "⚠️": "yellow",
    "⏳": "yellow",
    "⏰": "cyan",
    "🔄": "cyan",
    "📨": "blue",
    "📦": "bold green",
    "🔍": "cyan",
    "💬": "magenta",
    "✍️": "magenta",
    "🔀": "magenta",
}
_LEVELS: Final = {"WARNING": "yellow", "ERROR": "bold red", "CRITICAL": "bold red"}


class Screen:
    """Standard output, for any thread; colour and a prompt only where it is a terminal."""

    def __init__(self) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Without a locale, Python refuses to write an emoji.
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        width = None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE
        self._console = Console(markup=False, highlight=False, emoji=False, width=width)
        self._lock = threading.RLock()
        self._prompt = ""

    def say(self, text: str = "", style: str = "") -> None:
        """Show one of the demo's own lines."""
        self._print(Text(text, style))

    def scene(self, number: int, name: str, shows: str) -> None:
        """Announce a scene."""
        self._print(Text())
        self._print(Rule(Text(f"{number} · {name}", "bold"), align="left", characters="─"))
        self.say(shows, "italic")

    def line(self, line: LogLine) -> None:
        """Show a process's line."""
        at = line.at.strftime("%H:%M:%S.%f")[:-3] if line.at else ""
        who = f"{at:<13}{line.process}".ljust(_WHO)
        self._print(Text.assemble((f"{who}│ ", "dim"), (escape(line.text), _style(line))))

    def said(self, speaker: str, listener: str, content: str, *, from_bot: bool) -> None:
        """Show a message of a conversation."""
        who = f"{speaker} → {listener}"
        for part in content.split("\n"):
            self._print(Text(f"{who:>{_WHO - 1}} ▌ {escape(part)}", "bold magenta" if from_bot else "bold cyan"))
            who = ""

    def verdict(self, name: str, faults: Sequence[str], note: str) -> None:
        """Show how a scene came out."""
        if not faults:
            self.say(f"✅ {name}{note and f': {note}'}", "bold green")
        for fault in faults:
            self.say(f"❌ {name}: {escape(fault)}", "bold red")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], last: Sequence[Sequence[str]]) -> None:
        """Show a table, whose `last` rows stand apart."""
        made = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for place, column in enumerate(columns):
            made.add_column(column, justify="left" if place == 0 else "right")
        for row in rows:
            made.add_row(*row)
        made.add_section()
        for row in last:
            made.add_row(*row, style="bold")
        self._print(made)

    def ask(self, prompt: str) -> str:
        """Ask for a line; output meanwhile appears above the prompt.

        Raises:
          EOFError: there is no more input.
        """
        with self._lock:
            self._prompt = prompt
        try:
            return input(prompt)
        finally:
            with self._lock:
                self._prompt = ""

    def _print(self, shown: RenderableType) -> None:
        with self._lock:
            if self._prompt:
                sys.stdout.write(_CLEAR_LINE)
            self._console.print(shown, soft_wrap=not isinstance(shown, Rule | Table))
            if self._prompt:
                sys.stdout.write(self._prompt + (readline.get_line_buffer() if readline else ""))
            sys.stdout.flush()


def _style(line: LogLine) -> str:
    for beginning, style in _STYLES.items():
        if line.text.startswith(beginning):
            return style
    return _LEVELS.get(line.level, "" if line.at else "dim")
