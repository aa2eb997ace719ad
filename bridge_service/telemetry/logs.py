"""How a process logs: one handler, lines for people or JSON, no secrets, and one record stays one record.

Foreign text is a field of a signal, a library's message, an error. Its secrets are replaced, and the characters that
could break a line or deceive a terminal are escaped. The journal's own words are constant and stay as they are.
"""

import io
import json
import logging
import math
import re
import sys
import threading
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import PurePath
from types import TracebackType
from typing import Final, Protocol
from urllib.parse import quote, unquote

from bridge_service.errors import BridgeError, type_of
from bridge_service.telemetry.signals import Signal
from bridge_service.telemetry.throttle import Throttle

_LONGEST_TEXT: Final = 2000
_SHORTEST_SECRET: Final = 4
_LEAST_LEVELS: Final = {
    "dramatiq": logging.INFO,
    # Its line of INFO for each retry repeats what the turn's own signals say.
    "dramatiq.middleware.retries.Retries": logging.WARNING,
    "apscheduler": logging.WARNING,
    # They log each request, and OPENAI_LOG=debug would log what people wrote.
    "httpx2": logging.WARNING,
    "openai": logging.WARNING,
}
_COLOURS: Final = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[1;31m"}
_NO_COLOUR: Final = "\x1b[0m"


class Stream(Protocol):
    """Where lines go: standard output, or the pipe that Dramatiq gives to its workers."""

    def write(self, text: str, /) -> object:
        """Take `text`."""

    def flush(self) -> object:
        """Pass on what was taken."""


def configure(
    level: str | int,
    log_format: str,
    secrets: Iterable[str],
    stream: Stream | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> "LineHandler":
    """Send this process's records, warnings and uncaught exceptions to `stream`, line by line.

    Replaces all handlers of the root logger, Dramatiq's included, and may be called again.

    Parameters:
      level: the least important level that is logged; DEBUG also shows whole tracebacks.
      log_format: `text` or `json`.
      secrets: passwords and tokens, replaced by *** everywhere. Those of fewer than `_SHORTEST_SECRET` characters stay:
        ordinary words contain them.
      stream: where the lines go; standard output if None.
      clock: returns seconds, never goes back.

    Returns:
      The handler; call its `report_held_back` every second.

    Raises:
      ValueError: for an unknown level or format.
    """
    formatters = {"text": TextFormatter, "json": JsonFormatter}
    if log_format not in formatters:
        raise ValueError(f"unknown log format: {log_format}")
    stream = sys.stdout if stream is None else stream
    if isinstance(stream, io.TextIOWrapper):
        # Without a locale, Python refuses to write an emoji.
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    root = logging.getLogger()
    root.setLevel(level)
    handler = LineHandler(stream, clock)
    handler.setFormatter(
        formatters[log_format](
            secrets, with_tracebacks=root.level <= logging.DEBUG, in_colour=getattr(stream, "isatty", lambda: False)()
        )
    )
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    for name, least in _LEAST_LEVELS.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    _log_what_python_prints()
    return handler


class LineHandler(logging.StreamHandler[Stream]):
    """Writes every signal, and of the other records at most one a second for each logger and level."""

    def __init__(self, stream: Stream, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._throttle: Throttle[tuple[str, int], str] = Throttle(clock)

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record`, or count it."""
        if _signal_of(record) is None:
            held_back = self._throttle.admit((record.name, record.levelno), record.levelname)
            if held_back is None:
                return
            record.held_back = held_back
        super().emit(record)

    def report_held_back(self, *, everything: bool = False) -> None:
        """Write how many records were left out. Every process calls this once a second.

        Parameters:
          everything: include the second that has not passed yet.
        """
        for (name, level), _, count in self._throttle.release(everything=everything):
            text = "%d more records of this logger and level"
            record = logging.LogRecord(name, level, __file__, 0, text, (count,), None)
            self.acquire()
            try:
                super().emit(record)
            finally:
                self.release()

    def close(self) -> None:
        """Write the last counts."""
        self.report_held_back(everything=True)
        super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Do nothing: logging's own method prints the record and its arguments on standard error, secrets included."""


class _Formatter(logging.Formatter):
    """What both formats do to the foreign text in a record."""

    def __init__(self, secrets: Iterable[str], *, with_tracebacks: bool = False, in_colour: bool = False) -> None:
        super().__init__()
        self._secrets = pattern_of(secrets)
        self._with_tracebacks = with_tracebacks
        self._in_colour = in_colour

    def _clean(self, text: str) -> str:
        # Secrets first: a cut through a secret would leave half of it.
        text = self._secrets.sub("***", text)
        if len(text) > _LONGEST_TEXT:
            text = text[:_LONGEST_TEXT] + "…"
        return escape(text)

    def _clean_value(self, value: object) -> object:
        """Return `value` as JSON can hold it."""
        if value is None or isinstance(value, int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, Mapping):
            return {self._clean(str(key)): self._clean_value(each) for key, each in value.items()}
        return self._clean(str(value))

    def _message(self, record: logging.LogRecord) -> str:
        """Return the text; only the journal's own line breaks stay."""
        if _signal_of(record) is None:
            return self._clean(_text_of(record).strip())
        if isinstance(record.args, Mapping):
            return record.msg % {
                name: self._clean(word) if isinstance(word, str) else word for name, word in record.args.items()
            }
        return str(record.msg)

    def _error(self, record: logging.LogRecord) -> str:
        """Return the exception as `Type at file.py:line`; '' if none.

        Its words may quote a message that the responder was given, so only DEBUG shows them. The words of a BridgeError
        quote none.
        """
        if not record.exc_info or record.exc_info[1] is None:
            return ""
        _, error, trace = record.exc_info
        if isinstance(error, BridgeError):
            return self._clean(": ".join(filter(None, (type_of(error), str(error).partition("\n")[0]))))
        return self._clean(" at ".join(filter(None, (type_of(error), place_of(trace)))))

    def _traceback(self, record: logging.LogRecord) -> list[str]:
        if not self._with_tracebacks or not record.exc_info:
            return []
        text = "".join(traceback.format_exception(*record.exc_info))
        return [escape(line) for line in self._secrets.sub("***", text).splitlines()]


class TextFormatter(_Formatter):
    """Writes `2026-11-24T23:16:18.123Z INFO bridge: ` and the text; each line of a text has that prefix."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines."""
        level = record.levelname
        if self._in_colour and record.levelno in _COLOURS:
            level = f"{_COLOURS[record.levelno]}{level}{_NO_COLOUR}"
        prefix = f"{_time_of(record)} {level} {escape(record.name)}: "
        text = self._message(record)
        if _signal_of(record) is None and (held_back := getattr(record, "held_back", 0)):
            text += f" ({held_back} more since the last one)"
        if error := self._error(record):
            text += f" | {error}"
        lines = [*text.split("\n"), *(f"  | {line}" for line in self._traceback(record))]
        return "\n".join(prefix + line for line in lines)


class JsonFormatter(_Formatter):
    """Writes one JSON object a record, with `ts`, `level`, `logger`, `event`, the signal's fields and `message`.

    `event` is `library_log` if the record is no signal. If they apply, `held_back` counts the records left out before
    this record, `exception` is its exception's type and place, and `traceback` is the traceback, at DEBUG.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        signal = _signal_of(record)
        fields: dict[str, object] = {
            "ts": _time_of(record),
            "level": record.levelname,
            "logger": escape(record.name),
            "event": signal.name if signal else "library_log",
        }
        for name, value in signal.fields().items() if signal else ():
            fields[name] = self._clean_value(value)
        fields["message"] = self._message(record)
        if held_back := getattr(record, "held_back", 0):
            fields["held_back"] = held_back
        if error := self._error(record):
            fields["exception"] = error
        if lines := self._traceback(record):
            fields["traceback"] = "\n".join(lines)
        return json.dumps(fields, ensure_ascii=False)


def escape(text: str) -> str:
    r"""Return `text` in one line that shows what it is.

    Control characters, ANSI escapes, line separators, marks of writing direction and other invisible characters become
    `\n`, `\x1b`, `\u202e` and so on.
    """
    if text.isprintable():
        return text
    return "".join(map(_escape_character, text))


def _escape_character(character: str) -> str:
    # Python counts wide spaces as not printable, and they are harmless.
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode("ascii")


def pattern_of(secrets: Iterable[str]) -> re.Pattern[str]:
    """Return what matches each secret as it is, as it stands in a URL, and as Python quotes it."""
    forms = {
        form
        for secret in secrets
        for form in (secret, unquote(secret), quote(secret, safe=""), repr(secret)[1:-1])
        if len(form) >= _SHORTEST_SECRET
    }
    # Longest first: a secret may begin with another. Without secrets the pattern never matches.
    return re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))) or r"(?!)")


def _signal_of(record: logging.LogRecord) -> Signal | None:
    signal = getattr(record, "bridge_signal", None)
    return signal if isinstance(signal, Signal) else None


def _text_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - a library's wrong arguments cost the arguments, not the line
        return str(record.msg)


def place_of(trace: TracebackType | None) -> str:
    """Return where an exception was raised, as `file.py:line`; '' if it is not known."""
    if trace is None:
        return ""
    *_, (frame, line) = traceback.walk_tb(trace)
    return f"{PurePath(frame.f_code.co_filename).name}:{line}"


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _log_what_python_prints() -> None:
    """Log warnings and uncaught exceptions: Python would print them with their secrets and line breaks."""
    logger = logging.getLogger("bridge.python")

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            logger.critical("uncaught exception", exc_info=(kind, error, trace))

    def uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
            name = args.thread.name if args.thread else "unknown"
            logger.critical(
                "uncaught exception in thread %s", name, exc_info=(args.exc_type, args.exc_value, args.exc_traceback)
            )

    def unraisable(args: "sys.UnraisableHookArgs") -> None:
        if args.exc_value is not None:
            logger.error(
                "exception that no code could catch", exc_info=(args.exc_type, args.exc_value, args.exc_traceback)
            )

    logging.captureWarnings(capture=True)
    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread
    sys.unraisablehook = unraisable
