from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from threading import Timer
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from bridge_service.demo import model, show
from bridge_service.demo.log import Log, LogLine, first_missing, parse
from bridge_service.demo.scenes import Outcome
from bridge_service.demo.show import closing_table
from bridge_service.demo.stage import DEFAULTS, environment
from bridge_service.operate.commands import demo
from bridge_service.responders import ResponderUnavailable, is_async, load_responder
from bridge_service.scenes.judge import Result
from bridge_service.settings import Settings
from tests.unit.test_responders import task

if TYPE_CHECKING:
    from pathlib import Path

QUICK = Result(replies=1, faults=(), detection=(0.002, 0.012), push=(0.004,))
SLOW = Result(replies=1, faults=(), detection=(0.6,), push=(8.0,))
AWAY = Result(replies=1, faults=(), detection=(0.6,), push=())


def outcome(result: Result | None, *faults: str, groups: int = 1) -> Outcome:
    """Make the outcome of a scene with one message."""
    return Outcome("A scene", faults, "", 1, groups, result)


def test_a_record_is_read_through_both_prefixes() -> None:
    """The runner's prefix gives the process, the record's gives level and time, and leading spaces stay."""
    line = parse("23:16:18 scheduler.1 | 2026-11-24T23:16:18.123Z INFO bridge:    Match ID: x | y")
    at = datetime(2026, 11, 24, 23, 16, 18, 123000, tzinfo=UTC)
    assert line == LogLine("scheduler", "   Match ID: x | y", "INFO", at)


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ("23:16:18 worker.1    | Shutting down...", LogLine("worker", "Shutting down...")),
        ("23:16:18 system      | worker.1 stopped (rc=1)", LogLine("system", "worker.1 stopped (rc=1)")),
        ("Traceback (most recent call last):", LogLine("system", "Traceback (most recent call last):")),
        ("", LogLine("system", "")),
    ],
)
def test_what_is_no_record_is_kept_as_it_is(raw: str, line: LogLine) -> None:
    """Lines of Dramatiq's parent, of the runner, and of whatever else have no level and no time."""
    assert parse(raw) == line


def test_lines_are_missed_in_their_order() -> None:
    """The first line that is not there after the one before it is named."""
    lines = [LogLine("scheduler", text) for text in ("⏰ Nouveau message", "   Match ID: 1", "📦 Grouping: 1 messages")]
    assert first_missing(lines, ["⏰", "Match ID", "📦"]) is None
    assert first_missing(lines, ["📦", "⏰"]) == "⏰"
    assert first_missing(lines, ["⏰", "⏰"]) == "⏰"
    assert first_missing(lines, []) is None


def test_a_line_is_waited_for() -> None:
    """A wait ends when a later line makes it true, does not see what was before its mark, and gives up in time."""
    log = Log()
    log.add(LogLine("scheduler", "old"))
    mark = log.mark()
    timer = Timer(0.05, log.add, [LogLine("scheduler", "new")])
    timer.start()
    assert log.wait(lambda lines: [line.text for line in lines] == ["new"], mark, 10)
    assert not log.wait(lambda lines: any(line.text == "old" for line in lines), mark, 0.05)
    timer.join()


def test_the_table_tells_what_went_wrong() -> None:
    """A scene with a fault is marked, one above the guide's goals too; a push of an outage has no time to keep."""
    outcomes = [outcome(QUICK), outcome(SLOW, "a fault", groups=2), outcome(AWAY, groups=2), outcome(None, "stuck")]
    _, rows, [together, _] = closing_table(outcomes)
    assert [row[-1] for row in rows] == ["✅", "❌", "✅", "❌"]
    assert [row[4:6] for row in rows] == [["12 ms", "4 ms"], ["600 ms ▲", "8000 ms ▲"], ["600 ms ▲", "-"], ["-", "-"]]
    assert together[1:4] == ["4", "6", "3"]


def test_the_environment_wins_except_for_the_servers() -> None:
    """Delays of the environment hold, blank ones do not, and no foreign database, Redis or broker is touched."""
    given = {
        "GROUPING_DELAY": "7",
        "TYPING_SPEED_CPS": " ",
        "DATABASE_URL": "postgresql://elsewhere/app",
        "POSTGRES_CONNECTION_STRING": "postgresql://elsewhere/app",
        "REDIS_URL": "redis://elsewhere",
        "BROKER_URL": "amqp://elsewhere",
        "LOG_FORMAT": "json",
    }
    settings = Settings.from_environ(environment(given, "postgresql://bridge@127.0.0.1/app", "redis://127.0.0.1"))
    assert settings.grouping_delay == 7
    assert settings.typing_speed_cps == float(DEFAULTS["TYPING_SPEED_CPS"])
    assert settings.database_url == "postgresql://bridge@127.0.0.1/app"
    assert settings.broker_url == settings.redis_url == "redis://127.0.0.1"
    assert settings.log_format == "text"


@pytest.mark.parametrize(("ends", "responder"), [(True, "scripted"), (False, "openai")])
def test_a_demo_that_ends_by_itself_spends_nothing(
    monkeypatch: pytest.MonkeyPatch, *, ends: bool, responder: str
) -> None:
    """`--exit` plays the script whatever RESPONDER says; without it the demo talks with the model that is set."""
    played: list[str] = []

    def run(environ: dict[str, str], *, ends: bool) -> int:
        played.append(environ["RESPONDER"])
        return int(ends)

    monkeypatch.setattr(show, "run", run)
    assert demo.run({"RESPONDER": "openai"}, ends=ends) == int(ends)
    assert played == [responder]


@pytest.mark.parametrize("chosen", ["echo", "openai"])
def test_a_model_is_away_while_its_file_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: str) -> None:
    """The switch stands before a plain responder and before one that is awaited, and the worker may cancel either."""

    async def waits(asked: object) -> str:
        del asked
        await asyncio.sleep(0)
        return "salut"

    monkeypatch.setitem(sys.modules, "bridge_service.responders.openai.worker", SimpleNamespace(reply=waits))
    away = tmp_path / "away"
    given = model.switchable({"RESPONDER": chosen}, away)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    model._responder.cache_clear()
    responder = load_responder(given["RESPONDER"])
    assert is_async(responder)
    asked = task("salut")
    assert asyncio.run(responder(asked)) == "salut"  # type: ignore[arg-type]
    away.touch()
    with pytest.raises(ResponderUnavailable):
        asyncio.run(responder(asked))  # type: ignore[arg-type]


def test_a_responder_of_ones_own_stands_alone(tmp_path: Path) -> None:
    """Only what is built in has the switch, and nothing of it is in the settings."""
    assert model.switchable({"RESPONDER": "mine:reply"}, tmp_path) == {}
