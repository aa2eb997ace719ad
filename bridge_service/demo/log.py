"""The lines of the processes, as the process runner passes them on."""

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

_RUNNER: Final = re.compile(r"\d\d:\d\d:\d\d (\S+) +\| (.*)")
_RECORD: Final = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]+Z) ([A-Z]+) [\w.]+: (.*)")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line.

    Attributes:
      process: the name of its process in the Procfile; `system` is the runner.
      text: what it says, without the runner's and the record's prefix.
      level: of the record; '' if the line is no record.
      at: when the record was made; None if the line is no record.
    """

    process: str
    text: str
    level: str = ""
    at: datetime | None = None


def parse(raw: str) -> LogLine:
    """Read one line of the runner's output."""
    if (outer := _RUNNER.fullmatch(raw)) is None:
        return LogLine("system", raw)
    process = outer[1].partition(".")[0]
    if (record := _RECORD.fullmatch(outer[2])) is None:
        return LogLine(process, outer[2])
    return LogLine(process, record[3], record[2], datetime.fromisoformat(record[1]))


class Log:
    """All lines so far: one thread adds them, others wait for them."""

    def __init__(self) -> None:
        self._lines: list[LogLine] = []
        self._changed = threading.Condition()

    def add(self, line: LogLine) -> None:
        """Keep a line."""
        with self._changed:
            self._lines.append(line)
            self._changed.notify_all()

    def mark(self) -> int:
        """Return the number of lines so far, for `since` and `wait`."""
        with self._changed:
            return len(self._lines)

    def since(self, mark: int) -> list[LogLine]:
        """Return the lines after a mark."""
        with self._changed:
            return self._lines[mark:]

    def wait(self, holds: Callable[[Sequence[LogLine]], bool], mark: int, seconds: float) -> bool:
        """Wait until `holds` returns True for the lines after a mark; return False after `seconds`."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not holds(self._lines[mark:]):
                if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                    return False
            return True


def first_missing(lines: Sequence[LogLine], wanted: Sequence[str]) -> str | None:
    """Return the first of `wanted` that no line begins with after the one before it was found; None if all are there.

    Leading spaces of a line do not count.
    """
    rest = iter(lines)
    return next((text for text in wanted if not any(line.text.lstrip().startswith(text) for line in rest)), None)
