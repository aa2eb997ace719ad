import gc
import io
import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_service.errors import DatabaseUnavailable
from bridge_service.telemetry import signals
from bridge_service.telemetry.journal import Journal
from bridge_service.telemetry.logs import configure, escape
from tests.support.signals import MATCH, SIGNALS, Clock, sample

INJECTIONS = [
    "x\r\n2026-11-24T23:16:18.123Z INFO bridge: ✅ Message poussé dans queue",
    "x\n✅ Message poussé dans queue",
    '"}\n{"ts":"2026-11-24T23:16:18.123Z","level":"INFO","event":"turn_pushed","message":"forged"}',
    "\x1b[2J\x1b[1;1H\x1b]0;title\x07",
    "\x9b31mred",
    "abc\u202edef\u202c\u2066ghi\u2069\u200f\u061c",
    "next\x85line\u2028separator\u2029paragraph\x0b\x0c\x1c\x1d\x1e",
    "nul\x00 backspace\x08 delete\x7f tab\t",
    "surrogate \ud800 and \udfff",
    "zero\u200bwidth\ufeff \u2060 tag\U000e0041",
    "%s %(name)s %n {0} {event}",
]


class Pipe:
    """A stream with nothing but write and flush, as in a Dramatiq worker."""

    def __init__(self) -> None:
        self.writes: list[str] = []

    def write(self, text: str, /) -> None:
        """Keep `text`."""
        self.writes.append(text)

    def flush(self) -> None:
        """Do nothing."""

    def take_lines(self) -> list[str]:
        """Return the lines since the last call."""
        text = "".join(self.writes)
        self.writes.clear()
        # Not splitlines: it would also split where a log collector does not.
        return text.removesuffix("\n").split("\n") if text else []


class Terminal(Pipe):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Give a stream to configure, and put back afterwards what `configure` changed in this process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    names = ("dramatiq", "dramatiq.middleware.retries.Retries", "apscheduler")
    levels = {name: logging.getLogger(name).level for name in names}
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield Pipe()
    logging.captureWarnings(capture=False)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    for name, each in levels.items():
        logging.getLogger(name).setLevel(each)
    root.setLevel(level)
    root.handlers[:] = handlers


def journal() -> Journal:
    """Return a journal as a process has it."""
    return Journal(logging.getLogger("bridge"))


def log_error(error: Exception, logger: str = "dramatiq", text: str = "failed", *args: object) -> None:
    """Log `error` as libraries do: where they caught it."""

    def fail() -> None:
        raise error

    try:
        fail()
    except type(error):
        logging.getLogger(logger).exception(text, *args)


def record_of(text: str, **extra: object) -> logging.LogRecord:
    """Return a library's record with `text`."""
    return logging.makeLogRecord({"name": "redis", "levelname": "INFO", "levelno": 20, "msg": text} | extra)


def test_a_line_has_time_level_and_logger(pipe: Pipe) -> None:
    """The prefix is UTC to the millisecond, the level and the logger."""
    handler = configure("INFO", "text", [], pipe)
    record = record_of("ready", created=1795562178.123, name="dramatiq.worker.WorkerThread")
    assert handler.format(record) == "2026-11-24T23:16:18.123Z INFO dramatiq.worker.WorkerThread: ready"


def test_each_line_of_an_event_has_the_prefix(pipe: Pipe) -> None:
    """The three lines of a notification come in one write, each findable by itself."""
    configure("INFO", "text", [], pipe)
    journal()(signals.NotificationReceived(42, "bot_events", {"match_id": MATCH}, MATCH))
    assert len(pipe.writes) == 1
    lines = pipe.take_lines()
    assert [line.split(" INFO bridge: ")[1] for line in lines] == [
        "📨 Notification reçue (pid=42, channel=bot_events)",
        f'   Payload: {{"match_id":"{MATCH}"}}',
        f"   Match ID: {MATCH}",
    ]


def test_json_has_the_name_and_the_ids(pipe: Pipe) -> None:
    """An event is one object with its stable name, its fields as keys and the French line as message."""
    handler = configure("INFO", "json", [], pipe)
    journal()(signals.TurnPushed(7, MATCH, "reply"))
    [line] = pipe.take_lines()
    found = json.loads(line)
    assert found.pop("ts").endswith("Z")
    assert found == {
        "level": "INFO",
        "logger": "bridge",
        "event": "turn_pushed",
        "turn_id": 7,
        "match_id": MATCH,
        "kind": "reply",
        "message": "✅ Message poussé dans queue",
    }
    assert json.loads(handler.format(record_of("x", created=1795562178.123)))["ts"] == "2026-11-24T23:16:18.123Z"


def test_json_of_every_event_has_its_fields(pipe: Pipe) -> None:
    """Whatever happens is one valid object a record, named, with each field."""
    configure("DEBUG", "json", [], pipe)
    for kind in SIGNALS:
        journal()(sample(kind, "x"))
        [line] = pipe.take_lines()
        found = json.loads(line)
        assert found["event"] == kind.name
        assert found.keys() >= {"ts", "level", "logger", "message"} | {field.name for field in fields(kind)}


def test_json_of_a_library(pipe: Pipe) -> None:
    """What is no event of ours says so."""
    configure("INFO", "json", [], pipe)
    logging.getLogger("dramatiq.WorkerProcess(0)").info("Worker process is %s.", "ready")
    [line] = pipe.take_lines()
    found = json.loads(line)
    assert found.pop("ts")
    assert found == {
        "level": "INFO",
        "logger": "dramatiq.WorkerProcess(0)",
        "event": "library_log",
        "message": "Worker process is ready.",
    }


def test_json_counts_what_was_held_back(pipe: Pipe) -> None:
    """The number of events left out before a line is a number there too."""
    clock = Clock()
    configure("INFO", "json", [], pipe)
    one = Journal(logging.getLogger("bridge"), clock)
    for _ in range(4):
        one(signals.RedisLost("reset"))
    clock.now += 1
    one(signals.RedisLost("reset"))
    assert [json.loads(line).get("held_back") for line in pipe.take_lines()] == [None, 3]


def test_json_has_no_number_that_json_lacks(pipe: Pipe) -> None:
    """Infinity is a text, since strict parsers refuse the rest of the line with it."""
    configure("INFO", "json", [], pipe)
    journal()(signals.TurnTyping(1, MATCH, float("inf")))
    [line] = pipe.take_lines()
    assert json.loads(line, parse_constant=pytest.fail)["seconds"] == "inf"


@pytest.mark.parametrize("text", INJECTIONS)
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_record_stays_one_record(pipe: Pipe, log_format: str, text: str) -> None:
    """No event field, message, argument, logger or error can add a line or reach the terminal."""
    configure("INFO", log_format, [], pipe)
    bridge = journal()
    told = [kind for kind in SIGNALS if kind.level >= logging.INFO]
    for kind in told:
        bridge(sample(kind, text))
    logging.getLogger("redis").warning(text)
    logging.getLogger("redis").error("argument: %s", text)
    logging.getLogger(f"odd {text}").info("x")
    log_error(ValueError(text))
    lines = pipe.take_lines()
    breaks = 2 if log_format == "text" else 0  # the notification's own
    assert len(lines) == len(told) + 4 + breaks
    if log_format == "json":
        objects = [json.loads(line) for line in lines]
        assert [each["event"] for each in objects] == [kind.name for kind in told] + ["library_log"] * 4
        lines += [text for each in objects for text in each["message"].split("\n")]
    else:
        assert all(line.startswith("20") for line in lines)
    assert all(line.isprintable() for line in lines)
    # Of all that claims to be a push, only the true one is a line of its own.
    true = re.compile(("" if log_format == "json" else r"\S+Z INFO bridge: ") + "✅ Message poussé dans queue")
    assert len([line for line in lines if true.fullmatch(line)]) == 1


@given(text=st.text())
def test_escaped_text_is_one_printable_line(text: str) -> None:
    """Nothing but spaces and printable characters is left of any text, and it can be written."""
    escaped = escape(text)
    assert len(escaped.splitlines()) <= 1
    assert all(each.isprintable() or each.isspace() for each in escaped)
    escaped.encode()


def test_what_is_printable_is_left_alone() -> None:
    """French, emoji and other scripts stay as they are."""
    text = "⚠️ Échec «\u00a0définitif\u00a0» 👂 日本 مرحبا"
    assert escape(text) == text


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_a_secret_never_shows(pipe: Pipe, log_format: str, level: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A password is replaced in messages, arguments, errors, tracebacks and fields, as it is, quoted or in a URL."""
    secret = "c'an/ry@ pä\\ss"
    forms = [secret, "c%27an%2Fry%40%20p%C3%A4%5Css", repr(secret)]
    configure(level, log_format, [secret, ""], pipe)
    one = journal()
    for number, form in enumerate(forms):
        for kind in SIGNALS:
            one(sample(kind, f"url://{form}@host"))
        logger = logging.getLogger(f"redis.{number}")
        logger.info("message %s" % form)  # noqa: G002, UP031 - some libraries do
        logger.warning("argument %s %r", form, {"password": secret})
        logger.critical("broken arguments %d", form)
        log_error(ConnectionError(form), logger.name)
    text = "".join(pipe.writes)
    assert text.count("***") > 3 * len(forms)
    assert "an/ry" not in text
    assert "an%2Fry" not in text
    output = capsys.readouterr()
    assert output.out + output.err == ""


def test_the_longer_of_two_secrets_goes_whole(pipe: Pipe) -> None:
    """A secret that begins like another leaves no rest."""
    configure("INFO", "text", ["canary", "canary-and-more"], pipe)
    logging.getLogger("redis").info("canary-and-more, canary")
    assert pipe.take_lines()[0].endswith(": ***, ***")


def test_a_secret_that_is_a_common_word_leaves_the_contract_alone(pipe: Pipe) -> None:
    """A password "message" changes no word of a line, and only foreign text is searched."""
    configure("INFO", "text", ["message", "Redis", "timer"], pipe)
    one = journal()
    one(signals.MessageGrouped(MATCH, 1, 1, 1, 15.0))
    one(signals.RedisAttemptFailed(1, 3, "bad password: message"))
    first, second = pipe.take_lines()
    assert first.endswith("⏰ Nouveau message, démarrage timer 15s")
    assert second.endswith("⚠️ Tentative 1/3 - Connexion Redis perdue: bad password: ***")


def test_a_word_of_three_letters_is_no_secret(pipe: Pipe) -> None:
    """Neither an empty password nor "app" tears up every line."""
    configure("INFO", "text", ["", "app"], pipe)
    logging.getLogger("redis").info("an application")
    assert pipe.take_lines()[0].endswith("an application")


def test_a_slip_in_its_arguments_costs_a_library_only_those(pipe: Pipe) -> None:
    """A record whose arguments do not fit still has its line."""
    configure("INFO", "text", [], pipe)
    logging.getLogger("redis").info("%d keys", "canary")
    assert pipe.take_lines()[0].endswith("INFO redis: %d keys")


def test_a_long_text_is_cut_after_its_secrets_are_gone(pipe: Pipe) -> None:
    """A megabyte is cut, and no half of a secret stands at the cut."""
    configure("INFO", "text", ["canary-secret"], pipe)
    logging.getLogger("redis").info("%s", "x" * 1993 + "canary-secret" + "y" * 1_000_000)
    [line] = pipe.take_lines()
    assert line.endswith("xxx***yyyy…")
    assert len(line) < 2100


def test_an_exception_is_one_line(pipe: Pipe) -> None:
    """Type and place stand behind the message, and none of its words, which may quote what people write."""
    configure("INFO", "text", [], pipe)
    error = ValueError("canary\nDETAIL:  Failing row contains (canary).")
    log_error(error, "dramatiq", "Failed to process message %s.", 7)
    [line] = pipe.take_lines()
    assert re.search(r" ERROR dramatiq: Failed to process message 7\. \| ValueError at test_logs\.py:\d+$", line)


def test_an_exception_of_ours_keeps_its_words(pipe: Pipe) -> None:
    """They never quote anything."""
    configure("INFO", "text", [], pipe)
    log_error(DatabaseUnavailable("no answer from PostgreSQL within 6 s"))
    assert pipe.take_lines()[0].endswith(" | DatabaseUnavailable: no answer from PostgreSQL within 6 s")


def test_a_class_that_is_named_at_run_time_is_told_as_its_base(pipe: Pipe) -> None:
    """A library that names an error's class after what it met gets nothing of it into a line."""
    configure("INFO", "text", [], pipe)
    log_error(type("Canary\n✅ Message poussé dans queue", (LookupError,), {})())
    assert " | LookupError at test_logs.py:" in pipe.take_lines()[0]


def test_an_exception_without_a_place_is_its_type(pipe: Pipe) -> None:
    """Neither that nor words that cannot be told keep a record back."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    handler = configure("INFO", "json", [], pipe)
    for error in (TimeoutError(), MuteError()):
        record = record_of("failed", exc_info=(type(error), error, None))
        assert json.loads(handler.format(record))["exception"] == type(error).__name__


def test_debug_shows_the_traceback_with_a_prefix_on_each_line(pipe: Pipe) -> None:
    """Whoever asks for DEBUG gets the frames, and none of their lines can pass for another record."""
    configure("DEBUG", "text", [], pipe)
    log_error(ValueError("first\n✅ Message poussé dans queue"))
    first, *others = pipe.take_lines()
    assert " ERROR dramatiq: failed | ValueError at test_logs.py:" in first
    assert any("test_logs.py" in line for line in others)
    assert all("Z ERROR dramatiq:   | " in line for line in others)


def test_debug_json_has_the_traceback_in_its_object(pipe: Pipe) -> None:
    """The frames are one more key."""
    configure("DEBUG", "json", [], pipe)
    log_error(ValueError("x"))
    [line] = pipe.take_lines()
    assert "test_logs.py" in json.loads(line)["traceback"]


def test_a_library_has_one_line_a_second_for_each_logger_and_level(pipe: Pipe) -> None:
    """The others are counted in the next line; another level, another logger and our events are not held back."""
    clock = Clock()
    configure("INFO", "text", [], pipe, clock)
    logger = logging.getLogger("dramatiq.worker.ConsumerThread(bot_messages)")
    one = journal()
    for _ in range(3):
        logger.critical("Consumer encountered a connection error")
        logger.info("Restarting consumer")
        logging.getLogger("uvicorn.error").critical("x")
        one(signals.RedisConnected())
    assert len(pipe.take_lines()) == 6
    clock.now += 1
    logger.critical("Consumer encountered a connection error")
    assert pipe.take_lines()[0].endswith("Consumer encountered a connection error (2 more since the last one)")


def test_what_a_library_was_not_allowed_to_say_is_counted_later(pipe: Pipe) -> None:
    """The count comes after the second without a further record, and at once when logging ends."""
    clock = Clock()
    handler = configure("INFO", "text", [], pipe, clock)
    for _ in range(3):
        logging.getLogger("redis").warning("x")
    handler.report_held_back()
    assert len(pipe.take_lines()) == 1
    clock.now += 1
    handler.report_held_back()
    assert [line.split("Z ")[1] for line in pipe.take_lines()] == [
        "WARNING redis: 2 more records of this logger and level"
    ]
    logging.getLogger("redis").warning("x")
    handler.close()
    assert [line.split("Z ")[1] for line in pipe.take_lines()] == [
        "WARNING redis: 1 more records of this logger and level"
    ]


def test_other_threads_can_log_after_a_report(pipe: Pipe) -> None:
    """A report leaves no lock behind."""
    handler = configure("INFO", "text", [], pipe)
    for _ in range(2):
        logging.getLogger("redis").warning("x")
    handler.report_held_back(everything=True)
    thread = threading.Thread(target=logging.getLogger("other").warning, args=("y",), daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert pipe.take_lines()[-1].endswith("y")


@pytest.mark.parametrize(
    ("name", "level", "shown"),
    [
        ("dramatiq.worker.WorkerThread", logging.INFO, True),
        ("dramatiq.worker.WorkerThread", logging.DEBUG, False),
        ("dramatiq.middleware.retries.Retries", logging.INFO, False),
        ("dramatiq.middleware.retries.Retries", logging.WARNING, True),
        ("apscheduler.scheduler", logging.INFO, False),
        ("apscheduler.executors.default", logging.WARNING, True),
        ("redis.connection", logging.DEBUG, True),
    ],
)
def test_talkative_libraries_are_hushed(pipe: Pipe, name: str, level: int, *, shown: bool) -> None:
    """Even at LOG_LEVEL=DEBUG, Dramatiq says no more than INFO, and its retries and APScheduler than WARNING."""
    configure("DEBUG", "text", [], pipe)
    logging.getLogger(name).log(level, "x")
    assert len(pipe.take_lines()) == shown


@pytest.mark.parametrize("name", ["dramatiq", "dramatiq.middleware.retries.Retries", "apscheduler", "bridge"])
def test_no_logger_is_louder_than_the_level(pipe: Pipe, name: str) -> None:
    """LOG_LEVEL=ERROR holds for everybody."""
    configure("ERROR", "text", [], pipe)
    logging.getLogger(name).warning("x")
    assert pipe.take_lines() == []


def test_there_is_one_handler(pipe: Pipe) -> None:
    """Dramatiq's own handler is gone, and a second call does not double the lines."""
    other = Pipe()
    logging.getLogger().addHandler(logging.StreamHandler(other))
    configure("INFO", "text", [], pipe)
    configure("INFO", "text", [], pipe)
    logging.getLogger("redis").warning("x")
    assert len(pipe.take_lines()) == 1
    assert other.writes == []


def test_the_stream_is_standard_output(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a stream the lines go to what standard output is at the call: Dramatiq replaces it in its workers."""
    monkeypatch.setattr(sys, "stdout", pipe)
    configure("INFO", "text", [])
    logging.getLogger("redis").warning("x")
    assert len(pipe.take_lines()) == 1


def test_a_stream_that_is_gone_harms_nobody(pipe: Pipe, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is raised and nothing is printed when the other end of the pipe has died."""

    class Gone(Pipe):
        def write(self, text: str, /) -> None:
            raise BrokenPipeError(text)

    assert pipe.writes == []
    configure("INFO", "text", [], Gone())
    logging.getLogger("redis").warning("canary")
    journal()(signals.RedisConnected())
    output = capsys.readouterr()
    assert output.out + output.err == ""


def test_emoji_can_be_written_without_a_locale(pipe: Pipe) -> None:
    """A stream that was opened as ASCII gets UTF-8."""
    assert pipe.writes == []
    raw = io.BytesIO()
    configure("INFO", "text", [], io.TextIOWrapper(raw, encoding="ascii"))
    journal()(signals.RedisConnected())
    assert raw.getvalue().decode().endswith("✅ Connecté à Redis\n")


def test_colour_is_for_terminals(pipe: Pipe) -> None:
    """The level of a warning is coloured on a terminal and nowhere else."""
    terminal = Terminal()
    for stream in (pipe, terminal):
        configure("INFO", "text", [], stream)
        journal()(signals.RedisLost("\x1b[2J"))
    assert "\x1b" not in pipe.take_lines()[0]
    line = terminal.take_lines()[0]
    assert " \x1b[33mWARNING\x1b[0m bridge: " in line
    assert line.count("\x1b") == 2


def test_an_uncaught_exception_is_a_record(pipe: Pipe, capsys: pytest.CaptureFixture[str]) -> None:
    """What ends a thread or the process is one line without secrets, not a traceback on standard error."""
    configure("INFO", "text", ["canary-secret"], pipe)

    def fail() -> None:
        raise RuntimeError("password canary-secret\nsecond line")

    thread = threading.Thread(target=fail, name="listener")
    thread.start()
    thread.join()
    [line] = pipe.take_lines()
    assert "CRITICAL bridge.python: uncaught exception in thread listener | RuntimeError at test_logs.py:" in line
    configure("INFO", "text", ["canary-secret"], pipe)  # with limits that start anew
    error = RuntimeError("canary-secret")
    sys.excepthook(RuntimeError, error, None)
    assert pipe.take_lines()[0].endswith("uncaught exception | RuntimeError")
    assert capsys.readouterr().err == ""


def test_an_exception_that_nobody_could_catch_is_a_record(pipe: Pipe, capsys: pytest.CaptureFixture[str]) -> None:
    """What a finalizer raises is one line without secrets too."""

    class Leaky:
        def __del__(self) -> None:
            raise RuntimeError("canary-secret")

    configure("INFO", "text", ["canary-secret"], pipe)
    Leaky()
    gc.collect()
    assert "ERROR bridge.python: exception that no code could catch | RuntimeError at" in pipe.take_lines()[0]
    assert capsys.readouterr().err == ""


def test_an_exit_is_no_error(pipe: Pipe, capsys: pytest.CaptureFixture[str]) -> None:
    """A thread that exits logs nothing, and Ctrl-C looks as it does everywhere."""
    configure("INFO", "text", [], pipe)
    thread = threading.Thread(target=sys.exit)
    thread.start()
    thread.join()
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert pipe.take_lines() == []
    assert capsys.readouterr().err == "KeyboardInterrupt\n"


def test_a_warning_is_a_record(pipe: Pipe, capsys: pytest.CaptureFixture[str]) -> None:
    """A deprecation does not break a stream of JSON objects."""
    configure("INFO", "json", [], pipe)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old\nways", DeprecationWarning, stacklevel=1)
    [line] = pipe.take_lines()
    assert json.loads(line)["logger"] == "py.warnings"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("level", "log_format"), [("LOUD", "text"), ("INFO", "xml")])
def test_an_unknown_level_or_format_is_refused(pipe: Pipe, level: str, log_format: str) -> None:
    """A wrong word is a ValueError."""
    with pytest.raises(ValueError, match=r"LOUD|xml"):
        configure(level, log_format, [], pipe)
