"""Whatever becomes of schema `bridge`, every command ends with a line that a person can read, and never a traceback."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from bridge_service.checks import app_tables, server
from bridge_service.operate.commands import status
from tests.integration.test_commands import CONTENT, READING, WRITING, Chat, Operator, failed, found
from tests.support.policy import set_grouping
from tests.support.roles import OWNER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.demo.servers import RedisServer
    from tests.support.roles import Urls

NOTHING: Final = "CREATE OR REPLACE FUNCTION bridge.{} RETURNS jsonb LANGUAGE sql AS $$ SELECT {}::jsonb $$"

BREAKAGES: Final = {
    "no row of the installation": "DELETE FROM bridge.installation",
    "an installation of no time": "UPDATE bridge.installation SET installed_at = 'infinity'",
    "an installation without a time": "ALTER TABLE bridge.installation ALTER installed_at DROP NOT NULL;"
    " UPDATE bridge.installation SET installed_at = NULL",
    "no data at all": "TRUNCATE bridge.installation, bridge.migrations, bridge.laid_functions, bridge.turns,"
    " bridge.events, bridge.processes, bridge.incidents",
    "no turns": "DROP TABLE bridge.turns CASCADE",
    "no processes": "DROP TABLE bridge.processes CASCADE",
    "no installation": "DROP TABLE bridge.installation CASCADE",
    "no migrations": "DROP TABLE bridge.migrations CASCADE",
    "no functions known": "DROP TABLE bridge.laid_functions CASCADE",
    "no events": "DROP TABLE bridge.events CASCADE",
    "functions dropped": "DROP FUNCTION bridge.status, bridge.verify, bridge.installed, bridge.dead_turns",
    "functions that answer nothing": "; ".join(
        (
            NOTHING.format("status(p_delay double precision DEFAULT NULL)", "NULL"),
            NOTHING.format("installed()", "NULL"),
            NOTHING.format("row_security()", "NULL"),
            NOTHING.format("why(p_message uuid)", "NULL"),
            NOTHING.format("dead_turn(p_turn bigint)", "NULL"),
        )
    ),
    "functions that answer something else": "; ".join(
        (
            NOTHING.format("installed()", "'{}'"),
            NOTHING.format("row_security()", '\'{"owner": 1, "tables": [1]}\''),
            NOTHING.format("why(p_message uuid)", "'{}'"),
            NOTHING.format("dead_turn(p_turn bigint)", "'{}'"),
        )
    ),
}


@pytest.fixture
def chat(bridge_database: Urls) -> Iterator[Chat]:
    """Give a database of the app with the bridge in it."""
    set_grouping(bridge_database, 0, opener=0, probability=0)
    with closing(Chat(bridge_database)) as chat:
        yield chat


@pytest.fixture
def operator(bridge_database: Urls, redis_server: RedisServer) -> Operator:
    """Give an operator of that database."""
    return Operator(DATABASE_URL=bridge_database.service, REDIS_URL=redis_server.url())


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_no_command_ends_with_a_traceback(operator: Operator, chat: Chat, breakage: str) -> None:
    """Each command ends with 0 or 1, says why in one line, and prints one valid object with --json."""
    message = chat.write(chat.match())
    chat.kill()
    chat.rows("SET client_min_messages = warning")
    chat.rows(BREAKAGES[breakage])
    for words in (*READING, ["why", message]):
        result = operator(*words, "--json")
        assert isinstance(json.loads(result.out), dict)
        assert result.code in (0, 1)
        assert "Traceback" not in result.err
    for words in (*READING, *WRITING):
        result = (operator.by(OWNER) if words[0] in ("migrate", "uninstall") else operator)(*words)
        assert result.code in (0, 1), words
        assert "Traceback" not in result.out + result.err
        assert CONTENT not in result.out + result.err
        assert result.code == 0 or result.out or result.err


@pytest.mark.parametrize("breakage", [name for name in BREAKAGES if not name.startswith("an installation of")])
def test_check_is_not_green_over_a_broken_schema(operator: Operator, chat: Chat, breakage: str) -> None:
    """What lacks a table, a row or a function that the bridge needs is a failed look with a remedy."""
    chat.rows("SET client_min_messages = warning")
    chat.rows(BREAKAGES[breakage])
    assert "schema" in failed(operator("check", "--json"))


def test_what_a_look_raises_is_its_own_line(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an error that no look expects, type and place are told, and the other looks go on; its words stay out."""

    def stumble(connection: object) -> None:
        del connection
        raise LookupError(CONTENT)

    expected = [check["name"] for check in operator("check", "--json").document["checks"]]
    monkeypatch.setattr(server, "clock", stumble)
    monkeypatch.setattr(app_tables, "tables", stumble)

    result = operator("check", "--json")

    assert failed(result) == {"clock", "app_tables"}
    assert found(result, "clock")["detail"].startswith("could not be looked at: LookupError at test_broken_schema.py:")
    assert [check["name"] for check in result.document["checks"]] == expected
    assert CONTENT not in result.out + result.err
    assert operator("check").out.count("❌") == 2


def test_a_look_that_takes_too_long_costs_no_other(
    operator: Operator, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look whose connection is given up fails, and the others go on with a new one."""
    monkeypatch.setattr("bridge_service.checks.look.TIMEOUT_SECONDS", 0.3)
    with closing(Chat(chat.urls)) as holder:
        holder.rows("BEGIN; LOCK TABLE pg_catalog.pg_depend IN ACCESS EXCLUSIVE MODE")
        result = operator("check", "--json")
    assert failed(result) == {"app_columns", "sequences"}
    assert "no answer" in found(result, "app_columns")["detail"]
    assert found(result, "listen")["ok"]


@pytest.mark.parametrize("words", [["status"], ["status", "--json"]], ids=" ".join)
def test_an_error_that_no_command_expects_is_one_line(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """The line has type and place; with --json it is an object. The words of the error may quote a message."""

    def stumble(*_: object) -> bool:
        raise ValueError(CONTENT)

    monkeypatch.setattr(status, "run", stumble)
    result = operator(*words)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert result.err.startswith("this command cannot go on: ValueError at test_broken_schema.py:")
    assert CONTENT not in result.out + result.err
    if "--json" in words:
        assert list(result.document) == ["error"]
