"""The judge of the scenes finds what a broken bridge leaves in the tables, on a real PostgreSQL."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from bridge_service.machine.database import Connection
from bridge_service.scenes.judge import Judge, Stuck
from bridge_service.scenes.script import Script
from bridge_service.settings import Settings
from tests.integration.test_commands import CONTENT, Chat
from tests.support.app import CAMILLE
from tests.support.roles import VALIDATOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.roles import Urls

BOTS_WORD = "INSERT INTO messages (match_id, sender_id, content) VALUES (%s, %s, %s)"


@pytest.fixture
def chat(bridge_database: Urls) -> Iterator[Chat]:
    """Give a database of the app with the bridge in it."""
    with closing(Chat(bridge_database)) as chat:
        yield chat


@pytest.fixture
def connection(bridge_database: Urls) -> Iterator[Connection]:
    """Give the connection of a role with the rights of `validate`."""
    with closing(Connection(bridge_database.of(VALIDATOR), application="test")) as connection:
        yield connection


def script(chat: Chat, connection: Connection, meanwhile: Callable[[], object], delay: int = 0) -> Script:
    """Make a script; `meanwhile` happens while the judge waits."""
    environ = {"DATABASE_URL": chat.urls.service, "GROUPING_DELAY": str(delay)}
    settings = Settings.from_environ(environ, needs=("database_url",))
    return Script(Judge(connection, settings, lambda _: meanwhile() and None))


def test_what_is_answered_once_and_in_time_has_no_fault(chat: Chat, connection: Connection) -> None:
    """Two messages of two conversations get a reply each, and every one has a time of detection and of its push."""
    played = script(chat, connection, chat.answer)
    result = played.messages([lambda: chat.write(chat.match())] * 2)
    assert (result.replies, result.faults) == (2, ())
    assert (len(result.detection), len(result.push)) == (2, 2)
    assert played.all_together() == ()


def test_a_reply_too_many_or_too_few_is_found(chat: Chat, connection: Connection) -> None:
    """The judge compares the bridge's books with the app's table, also for what earlier scenes wrote there."""
    match = chat.match()
    played = script(chat, connection, chat.answer)
    assert played.messages([lambda: chat.write(match)]).faults == ()
    chat.rows(BOTS_WORD, match, CAMILLE, CONTENT)
    [fault] = played.messages([lambda: chat.write(match)]).faults
    assert fault.startswith("1 replies too many")
    chat.rows("DELETE FROM messages WHERE sender_id = %s", CAMILLE)
    [fault] = played.all_together()
    assert fault == "2 replies count as delivered and are not in table messages"


def test_rapid_messages_in_two_groups_are_found(chat: Chat, connection: Connection) -> None:
    """A scheduler with a shorter delay breaks the group, and pushes before the planned time."""
    match = chat.match()

    def write() -> str:
        message = chat.write(match)
        chat.answer()
        return message

    [groups, early] = script(chat, connection, chat.answer, delay=30).burst([write, write]).faults
    assert groups == "2 rapid messages became 2 groups: is GROUPING_DELAY 30 in the scheduler's environment, too?"
    assert early.startswith(("a turn was pushed 30.", "a turn was pushed 29."))


def test_a_turn_that_is_given_up_ends_the_scene(chat: Chat, connection: Connection) -> None:
    """The judge names the turn and its error at once, and does not wait for a stage that cannot come."""
    played = script(chat, connection, chat.kill)
    with pytest.raises(Stuck, match=r"\Aturn \d+ was given up: ValueError: no words\Z"):
        played.messages([lambda: chat.write(chat.match())])
