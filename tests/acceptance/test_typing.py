"""Who types, with real processes: the app sees the bot type, and the bot waits for a person who types."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from bridge_service.install.plan import migrate
from tests.integration.rules.test_rules_typing import TYPING_EVENTS
from tests.support.app import CAMILLE, LEA, App
from tests.support.databases import copy, copy_of, execute
from tests.support.roles import OWNER
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.demo.servers import PostgresServer
    from tests.support.roles import Urls
    from tests.support.service import Service


@pytest.fixture(scope="session")
def chat_template(postgres: PostgresServer, bridge_template: str) -> str:
    """Give the name of a template of an app with indicators, with the bridge."""
    urls = copy(postgres, bridge_template, "chat_template")
    execute(urls.app, TYPING_EVENTS, f"GRANT SELECT, INSERT, UPDATE ON typing_events TO {OWNER}")
    migrate(urls.owner)
    return "chat_template"


@pytest.fixture
def bridge_database(postgres: PostgresServer, chat_template: str) -> Iterator[Urls]:
    """Give a fresh database of that app."""
    with copy_of(postgres, chat_template) as urls:
        yield urls


@pytest.fixture
def app(bridge_database: Urls) -> Iterator[App]:
    """Give the app on the service's database."""
    with closing(App(bridge_database)) as app:
        yield app


def test_the_app_sees_the_bot_type_also_through_a_crash(service: Service, app: App) -> None:
    """The indicator is on while the bot types; the scheduler that takes over from a killed one switches it off."""
    service.environment.update({"GROUPING_DELAY": "0", "THINKING_DELAY_MAX": "0.5", "TYPING_SPEED_CPS": "4"})
    scheduler = service.start_scheduler()
    service.start_worker()
    match = app.old_match()
    on = "SELECT is_typing FROM typing_events WHERE match_id = %s AND user_id = %s"
    app.write(match, "un message")
    eventually(lambda: app.rows(on, match, CAMILLE) == [(True,)])
    assert app.said(match) == []
    service.kill(scheduler)
    service.start_scheduler()
    app.wait_for_replies(match, "un message")
    eventually(lambda: app.rows(on, match, CAMILLE) == [(False,)])
    assert app.value("SELECT count(*) FROM bridge.indicators") == 0


def test_the_bot_waits_for_a_person_who_types(service: Service, app: App) -> None:
    """A person who types when the group is due gets one answer to all, and it is not early."""
    match = app.old_match()
    app.rows(
        "INSERT INTO typing_events VALUES (%s, %s, true, now(), now() + interval '1 hour')", match, LEA
    )  # renewed for the whole test
    service.up()
    app.write(match, "attends")
    due = "SELECT state, planned_at > opened_at + interval '1 second' FROM bridge.turns WHERE match_id = %s"
    eventually(lambda: app.rows(due, match) == [("open", True)])
    app.write(match, "voila")
    app.rows("UPDATE typing_events SET is_typing = false WHERE user_id = %s", LEA)
    app.wait_for_replies(match, "attends\nvoila")
