"""The judge of the scenes finds what a broken bridge leaves in the tables, on a real PostgreSQL."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from bridge_service.machine.database import Connection
from bridge_service.scenes.judge import Judge, Stuck
from bridge_service.scenes.script import Script
from bridge_service.scenes.tact import LeftOut, Tact
from tests.integration.test_commands import CONTENT, Chat
from tests.support.app import CAMILLE
from tests.support.policy import set_policy
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


def script(chat: Chat, connection: Connection, meanwhile: Callable[[], object]) -> Script:
    """Make a script; `meanwhile` happens while the judge waits."""

    def pause(seconds: float) -> None:
        del seconds
        meanwhile()

    set_policy(chat.urls, grouping_delay=0)
    return Script(Judge(connection, pause))


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
    set_policy(chat.urls, takeover_pause=0)  # else the word below is a human's, and the bot silent for an hour
    assert played.messages([lambda: chat.write(match)]).faults == ()
    chat.rows("UPDATE bridge.bots SET takeover_pause = 0 WHERE scope = 'default'")
    chat.rows(BOTS_WORD, match, CAMILLE, CONTENT)
    [fault] = played.messages([lambda: chat.write(match)]).faults
    assert fault.startswith("1 replies too many")
    chat.rows("DELETE FROM messages WHERE sender_id = %s", CAMILLE)
    [fault] = played.all_together()
    assert fault == "2 replies count as delivered and are not in table messages"


def test_rapid_messages_in_two_groups_are_found(chat: Chat, connection: Connection) -> None:
    """Messages of one moment that were answered apart break the grouping."""
    match = chat.match()

    def write() -> str:
        message = chat.write(match)
        chat.answer()
        return message

    played = script(chat, connection, chat.answer)
    played.judge.delay = 30
    assert played.burst([write, write]).faults[0].startswith("2 rapid messages became 2 groups")


def test_a_push_before_or_long_after_its_time_is_found(chat: Chat, connection: Connection) -> None:
    """A push has its planned time to keep, except in a scene in which a server was away."""

    def push_at(moment: str) -> None:
        chat.answer()
        chat.rows("UPDATE bridge.turns SET queued_at = opened_at + %s::interval WHERE kind = 'reply'", moment)

    for moment, fault in (
        ("-2 s", "a turn was pushed 2.00 s before its planned time"),
        ("7 s", "a turn was pushed 7.0 s after its planned time"),
    ):
        played = script(chat, connection, lambda moment=moment: push_at(moment))  # type: ignore[misc]
        sent = played.write([lambda: chat.write(chat.match())])
        assert played.answered(sent).faults[0].startswith(fault)
        assert played.answered(sent, healthy=False).faults == ()


def test_a_turn_that_is_given_up_ends_the_scene(chat: Chat, connection: Connection) -> None:
    """The judge names the turn and its error at once, and does not wait for a stage that cannot come."""
    played = script(chat, connection, chat.kill)
    with pytest.raises(Stuck, match=r"\Aturn \d+ was given up: ValueError: no words\Z"):
        played.messages([lambda: chat.write(chat.match())])


def test_what_a_human_answered_is_settled_and_no_reply(chat: Chat, connection: Connection) -> None:
    """The turn that a human took over counts as done, the human's message as none of the bot's, the pause is heeded."""
    match = chat.match()

    def human() -> str:
        [[message]] = chat.rows(f"{BOTS_WORD} RETURNING id::text", match, CAMILLE, CONTENT)
        chat.rows("UPDATE bridge.bots SET takeover_pause = 0.5 WHERE bot_id = %s", CAMILLE)
        return str(message)

    played = script(chat, connection, chat.answer)
    set_policy(chat.urls, grouping_delay=1)
    tact = Tact(played, played.judge, CAMILLE)
    result = tact.takeover(match, lambda: chat.write(match), human, lambda: chat.write(match))
    assert (result.replies, result.faults) == (1, ())
    assert chat.rows("SELECT count(*) FROM bridge.bots WHERE scope = 'bot'") == [(0,)]
    assert chat.rows("SELECT count(*) FROM bridge.pauses") == [(0,)]


def test_a_message_at_night_is_held_until_the_night_is_over(chat: Chat, connection: Connection) -> None:
    """The scene sees the message held, takes the hours back, and leaves the bot without a row of its own."""
    seen = []

    def meanwhile() -> None:
        chat.store.plan_held()
        chat.answer()

    played = script(chat, connection, meanwhile)
    tact = Tact(played, played.judge, CAMILLE, {"grouping_delay": 0})
    result = tact.night(lambda: chat.write(chat.match()), lambda: seen.append("asleep"))
    assert (result.replies, result.faults, seen) == (1, (), ["asleep"])
    assert chat.rows("SELECT count(*) FROM bridge.bots WHERE scope = 'bot'") == [(0,)]


def test_a_responder_of_one_message_leaves_the_interruption_out(chat: Chat, connection: Connection) -> None:
    """Where a reply has a single message none can be withheld: the scene says so, and takes its policy back."""
    played = script(chat, connection, chat.answer)
    with pytest.raises(LeftOut, match="answers with one message"):
        Tact(played, played.judge, CAMILLE).interrupted(lambda: chat.write(chat.match()), lambda: "never written")
    assert chat.rows("SELECT count(*) FROM bridge.bots WHERE scope = 'bot'") == [(0,)]
