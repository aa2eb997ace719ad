"""The app's table of who types: `migrate` uses one that fits, works without one, and `check` tells which."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from bridge_service.install.files import TYPING_TABLE
from bridge_service.install.plan import migrate
from bridge_service.machine.database import Connection
from bridge_service.operate.commands.validate_app import Guests, clean_up
from bridge_service.operate.commands.validate_tact import MAY_TYPE
from tests.integration.rules.test_rules_typing import TYPING_EVENTS
from tests.integration.test_commands import Operator, failed, found
from tests.support.app import App
from tests.support.databases import execute
from tests.support.roles import OWNER, VALIDATOR
from tests.support.store import store_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.demo.servers import RedisServer
    from tests.support.roles import Urls

GRANT = f"GRANT SELECT, INSERT, UPDATE ON typing_events TO {OWNER}"


@pytest.fixture
def app(bridge_database: Urls) -> Iterator[App]:
    """Give the app, without indicators, with the bridge."""
    with closing(App(bridge_database)) as app:
        yield app


@pytest.fixture
def operator(bridge_database: Urls, redis_server: RedisServer) -> Operator:
    """Give an operator of that database."""
    return Operator(DATABASE_URL=bridge_database.service, REDIS_URL=redis_server.url())


def look(operator: Operator) -> dict[str, Any]:
    """Return what `check` says of the table; no other check fails."""
    result = operator("check", "--json")
    assert failed(result) <= {"app_typing"}
    return found(result, "app_typing")


def uses(app: App) -> bool:
    """Return whether the bridge uses the table."""
    return bool(app.value("SELECT bridge.has_typing()"))


def test_an_app_without_the_table_has_nothing_to_do(app: App, operator: Operator) -> None:
    """Without `typing_events` no function reads or writes one, nobody types, and `check` is content."""
    assert not uses(app)
    assert app.value("SELECT bridge.is_typing(gen_random_uuid(), gen_random_uuid())") is False
    with store_on(app.urls) as store:
        assert store.show_due(50) is None
    check = look(operator)
    assert check["ok"]
    assert "no table typing_events" in check["detail"]


def test_a_table_that_comes_later_is_used_after_the_next_run(app: App, operator: Operator) -> None:
    """`migrate` binds the table, names it in `bound`, and has nothing to do in the run after that."""
    execute(app.urls.app, TYPING_EVENTS, GRANT)
    check = look(operator)
    assert check["ok"]
    assert "migrate" in check["remedy"]

    report = migrate(app.urls.owner)
    assert "public.typing_events" in report.bound
    assert uses(app)
    again = migrate(app.urls.owner)
    assert (again.functions, again.bound) == ([], [])
    assert look(operator) == {
        "name": "app_typing",
        "ok": True,
        "detail": "public.typing_events shows when a bot types",
        "remedy": "",
    }


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("ALTER TABLE typing_events DROP COLUMN started_at", "it has no column started_at"),
        (
            "ALTER TABLE typing_events DROP CONSTRAINT typing_events_user_id_fkey, ALTER user_id TYPE text",
            "column user_id has type text, needed is uuid",
        ),
        ("ALTER TABLE typing_events ADD device text NOT NULL", "column device takes no NULL and has no default"),
        (f"REVOKE INSERT ON typing_events FROM {OWNER}", f"role {OWNER} lacks INSERT on it"),
        ("ALTER TABLE typing_events ENABLE ROW LEVEL SECURITY", f"row-level security rules role {OWNER}"),
    ],
)
def test_a_table_that_does_not_fit_is_not_used(app: App, operator: Operator, change: str, fault: str) -> None:
    """`migrate` passes over a table that the bridge cannot use, and `check` says in one line what is wrong with it."""
    execute(app.urls.app, TYPING_EVENTS, GRANT, change)
    migrate(app.urls.owner)

    assert not uses(app)
    check = look(operator)
    assert not check["ok"]
    assert check["detail"] == f"public.typing_events: {fault}: no indicator is shown"


def test_a_table_of_another_owner_is_not_used(app: App, operator: Operator) -> None:
    """A role that may create tables in the app's schema cannot make the bridge run its triggers."""
    app.rows(TYPING_EVENTS)
    app.rows(GRANT)
    migrate(app.urls.owner)

    assert not uses(app)
    assert "it belongs to role postgres, and messages to app" in look(operator)["detail"]


def test_a_table_that_is_gone_is_told_and_let_go(app: App, operator: Operator) -> None:
    """While a dropped table is missed replies go on, and the next run of `migrate` does without it."""
    execute(app.urls.app, TYPING_EVENTS, GRANT)
    migrate(app.urls.owner)
    execute(app.urls.app, "DROP TABLE typing_events")
    check = look(operator)
    assert not check["ok"]
    assert "public.typing_events is gone" in check["detail"]
    assert app.value("SELECT bridge.indicate(gen_random_uuid(), gen_random_uuid(), true)") is None

    migrate(app.urls.owner)
    assert not uses(app)
    assert look(operator)["ok"]


def test_an_app_with_indicators_elsewhere_replaces_three_functions(app: App, operator: Operator) -> None:
    """What the app replaces works at once, stays through `migrate`, and is named by `check`."""
    app.rows("CREATE OR REPLACE FUNCTION bridge.has_typing() RETURNS boolean LANGUAGE sql STABLE AS 'SELECT true'")
    report = migrate(app.urls.owner)
    assert report.kept == ["has_typing"]
    assert uses(app)
    assert look(operator)["detail"] == "the app replaced has_typing"


def test_validate_deletes_the_indicators_of_its_own_matches(app: App) -> None:
    """A bot's row that refers to a match of `validate` does not keep that match from being deleted."""
    execute(app.urls.app, TYPING_EVENTS, GRANT, f"GRANT SELECT, DELETE ON typing_events TO {VALIDATOR}")
    migrate(app.urls.owner)
    url = app.urls.of(VALIDATOR)
    with closing(Connection(url, application="test")) as connection:
        guests = Guests(connection, people=1)
        guests.arrive()
        match = guests.match()
    app.rows("SELECT bridge.indicate(%s, %s, true)", match, guests.bot)
    assert app.value("SELECT count(*) FROM typing_events") == 1

    assert clean_up(url, guests) is None
    assert app.value("SELECT count(*) FROM typing_events") == 0
    assert app.value("SELECT count(*) FROM matches WHERE id = %s", match) == 0


def test_a_person_of_validate_types(app: App) -> None:
    """The guest's row keeps a group open while it is on, and is off when the guest stops."""
    execute(app.urls.app, TYPING_EVENTS, GRANT, f"GRANT SELECT, INSERT, UPDATE, DELETE ON typing_events TO {VALIDATOR}")
    migrate(app.urls.owner)
    with closing(Connection(app.urls.of(VALIDATOR), application="test")) as connection:
        guests = Guests(connection, people=1)
        guests.arrive()
        match = guests.match()
        for on in (True, True, False):
            guests.types(match, on=on)
            assert app.value("SELECT bridge.is_typing(%s, %s)", match, guests.people[0]) is on
        assert connection.execute(MAY_TYPE, (TYPING_TABLE,) * 3) == [(True, True)]
    assert clean_up(app.urls.of(VALIDATOR), guests) is None
