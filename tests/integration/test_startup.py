"""What a process says of PostgreSQL when it starts."""

from __future__ import annotations

from contextlib import closing
from threading import Event
from typing import TYPE_CHECKING

import pytest

from bridge_service.process.startup import look_at_postgresql
from bridge_service.telemetry.signals import CheckFailed
from tests.support.app import App
from tests.support.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.roles import Urls


@pytest.fixture
def app(bridge_database: Urls) -> Iterator[App]:
    """Give the app of a database with the bridge."""
    with closing(App(bridge_database)) as app:
        yield app


def told(url: str, *, connections: int = 1, nothing_else: bool = False) -> list[CheckFailed]:
    """Return what a process says."""
    recorder = Recorder()
    look_at_postgresql(url, recorder, Event(), connections=connections, nothing_else=nothing_else)
    assert len(recorder.signals) == len(recorder.of(CheckFailed))
    return recorder.of(CheckFailed)


def test_nothing_is_said_of_a_database_that_is_as_it_should_be(app: App) -> None:
    """All its lines are about faults."""
    assert told(app.urls.service) == []


@pytest.mark.superuser
def test_nothing_is_said_of_what_is_merely_unwise(app: App) -> None:
    """That the role is a superuser is said by `check`."""
    assert told(app.urls.admin) == []


READ_ONLY = """
    DO $$BEGIN
        EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database());
    END$$
"""


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        ("ALTER TABLE messages DISABLE TRIGGER bridge_after_message", "triggers"),
        ("DROP FUNCTION bridge.claim", "schema"),
        ("DELETE FROM bridge.migrations WHERE number > 1", "schema"),
        (READ_ONLY, "postgresql_writable"),
        ("ALTER TABLE messages RENAME COLUMN content TO text", "app_tables"),
    ],
)
def test_what_is_amiss_is_said_with_its_remedy(app: App, spoil: str, check: str) -> None:
    """Each fault is told once, by the name that `check` gives it."""
    app.rows(spoil)

    [event] = told(app.urls.service)

    assert event.check == check
    assert event.detail
    assert event.remedy


def test_too_few_connections(app: App) -> None:
    """A process that may open more connections than are left says so; a later brother says nothing else."""
    app.rows("ALTER TABLE messages DISABLE TRIGGER bridge_after_message")

    assert [event.check for event in told(app.urls.service, connections=10_000)] == ["connections", "triggers"]
    [event] = told(app.urls.service, connections=10_000, nothing_else=True)
    assert event.check == "connections"
    assert "10000 have to be free" in event.remedy
    assert told(app.urls.service, nothing_else=True) == []


def test_a_process_that_stops_says_nothing_more(app: App) -> None:
    """Its last line is that it has stopped."""
    recorder = Recorder()
    stopping = Event()
    stopping.set()

    look_at_postgresql(app.urls.service, recorder, stopping, connections=10_000)

    assert recorder.signals == []


def test_a_lost_database_is_said_and_raises_nothing(app: App) -> None:
    """The steps tell of it too; the look is over."""
    nobody = app.urls.service.rpartition("/")[0] + "/no_such_database"

    [event] = told(nobody)

    assert event.check == "postgresql"
