"""LIMIT_CALLS_PERSON_DAY under kills: a thousand messages, and a worker that dies every two seconds."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Final

from tests.acceptance.conftest import app, service  # noqa: F401 - fixtures
from tests.support.app import HUGO, LEA
from tests.support.model_server import ModelServer, says, slow
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.app import App
    from tests.support.service import Service

LIMIT: Final = 10
MESSAGES: Final = 1000
KILL_SECONDS: Final = 2.0


def test_a_thousand_messages_and_a_kill_every_two_seconds(service: Service, app: App) -> None:  # noqa: F811
    """The server's own counter stays within the limit of the two people together, and each open message waits."""
    with ModelServer() as server:
        server.does(slow(0.3, says("oui")))
        service.environment.update(
            RESPONDER="openai", OPENAI_MODEL="local", OPENAI_BASE_URL=server.url, LIMIT_CALLS_PERSON_DAY=str(LIMIT)
        )
        service.up()
        done = threading.Event()
        thread = threading.Thread(target=kill, args=(service, done))
        thread.start()
        try:
            matches = [(person, app.old_match(person)) for person in (LEA, HUGO) for _ in range(20)]
            for number, (person, match) in zip(range(MESSAGES), itertools.cycle(matches), strict=False):
                app.write(match, f"message {number}", sender=person)
                done.wait(0.03)
        finally:
            done.set()
            thread.join()
        under_way = "SELECT count(*) FROM bridge.turns WHERE state IN ('queued', 'composing', 'typing')"
        eventually(lambda: app.value(under_way) == 0, timeout=90)
        assert len(server.calls) <= 2 * LIMIT
        assert app.rows("SELECT DISTINCT calls FROM bridge.budgets WHERE kind = 'person'") == [(LIMIT,)]


def kill(service: Service, done: threading.Event) -> None:  # noqa: F811
    """Kill the worker and start another one, again and again."""
    worker = service.start_worker()
    while not done.wait(KILL_SECONDS):
        service.kill(worker)
        worker = service.start_worker()
