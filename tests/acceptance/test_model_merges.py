"""What a second message does to the call of a model under way: two real worker processes, a real server."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.model_server import CLOSED_SECONDS, ModelServer, group_of, held, says, slow
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.app import App
    from tests.support.model_server import Call, Handler
    from tests.support.service import Service

LONG: Final = 30.0
GROUPED: Final = "Nouveau message|Grouping:"


@pytest.fixture
def server(service: Service) -> Iterator[ModelServer]:
    """Give a model's server that a service with two worker processes asks; nothing of it runs yet."""
    with ModelServer() as server:
        server.does(covers)
        service.environment.update(RESPONDER="openai", OPENAI_MODEL="local", OPENAI_BASE_URL=server.url)
        yield server


def covers(handler: Handler, call: Call) -> None:
    """Answer with the group."""
    says("\n".join(group_of(call.messages)))(handler, call)


def start(service: Service, **environment: str) -> None:
    """Start one scheduler and two workers."""
    service.environment.update(environment)
    service.up(workers=2)


def test_a_newer_message_ends_the_call_under_way(service: Service, app: App, server: ModelServer) -> None:
    """The server sees the first call's connection close, and one reply covers both messages."""
    server.next(slow(LONG, covers))
    start(service)
    match = app.old_match()
    app.write(match, "un")
    first = server.wait_for_call()
    app.write(match, "deux")

    assert first.closed.wait(CLOSED_SECONDS)
    app.wait_for_replies(match, "un\ndeux")
    assert [group_of(call.messages) for call in server.calls] == [["un"], ["un", "deux"]]


def test_no_more_calls_are_ended_than_max_merges(service: Service, app: App, server: ModelServer) -> None:
    """The next call is left alone whatever is written, and only its draft makes way; the one reply covers all."""
    merges, may_answer = 2, threading.Event()
    server.next(*[slow(LONG, covers)] * merges, held(may_answer, covers))
    start(service, MAX_MERGES=str(merges))
    match = app.old_match()
    told: list[str] = []
    for number in range(merges + 1):
        told.append(f"message {number}")
        app.write(match, told[-1])
        assert group_of(server.wait_for_call(number + 1).messages) == told
    told.append("one more")
    app.write(match, told[-1])
    service.wait_for_line(GROUPED, count=len(told))
    may_answer.set()
    app.wait_for_replies(match, "\n".join(told))

    ended, kept = server.calls[:merges], server.calls[merges:]
    eventually(lambda: all(call.closed.is_set() for call in ended))
    assert [call.closed.is_set() for call in kept] == [False, False]


def test_with_queue_the_call_under_way_is_left_alone(service: Service, app: App, server: ModelServer) -> None:
    """Two replies come in order, each to its own message, and no connection is closed."""
    may_answer = threading.Event()
    server.next(held(may_answer, covers))
    start(service, SECOND_MESSAGE="queue")
    match = app.old_match()
    app.write(match, "un")
    first = server.wait_for_call()
    app.write(match, "deux")
    service.wait_for_line(GROUPED, count=2)
    may_answer.set()

    app.wait_for_replies(match, "un", "deux")
    assert not first.closed.is_set()
    assert [group_of(call.messages) for call in server.calls] == [["un"], ["deux"]]
