"""What the console reads and does in PostgreSQL: stories, bots, late turns, and actions with their rows."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import psycopg2
import pytest

from tests.support.app import CAMILLE, App, Client
from tests.support.policy import set_policy
from tests.support.store import store_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.machine.steps import Store
    from tests.support.roles import Urls

CANARY: Final = "canary-51c2"


@pytest.fixture
def app(bridge_database: Urls) -> Iterator[App]:
    """Give the app; groups close at once."""
    set_policy(bridge_database, grouping_delay=0)
    with closing(App(bridge_database)) as app:
        yield app


@pytest.fixture
def store(app: App) -> Iterator[Store]:
    """Give the machine of that database."""
    with store_on(app.urls) as store:
        yield store


@pytest.fixture
def console(app: App) -> Iterator[Client]:
    """Give a connection of the run-time role, as the console has it."""
    with closing(Client(app.urls.service)) as client:
        yield client


def write(app: App, store: Store, match: str) -> tuple[str, int]:
    """Write a message that is grouped and pushed; return it and its turn."""
    message = app.write(match, CANARY)
    [turn] = {grouped.turn_id for grouped in store.group()}
    store.push_due(10)
    return message, turn


def die(app: App, store: Store) -> tuple[str, int]:
    """Let a turn die; return its match and its id."""
    match = app.old_match()
    _, turn = write(app, store, match)
    app.rows("UPDATE bridge.turns SET attempts = 4 WHERE id = %s", turn)
    token = uuid4()
    assert store.claim(turn, token).name == "claimed"
    assert store.fail(turn, token, f"ValueError: {CANARY}", retry=1, counts=True).name == "dead"
    return match, turn


def act(console: Client, what: str, on: object, values: object = None) -> dict[str, Any]:
    """Act as the console does."""
    given = None if values is None else json.dumps(values)
    found: dict[str, Any] = console.value("SELECT bridge.act('Ada', '192.0.2.7', %s, %s, %s)", what, str(on), given)
    return found


def written(app: App) -> list[tuple[Any, ...]]:
    """Return what was written down."""
    return app.rows("SELECT who, address, what, on_what, outcome FROM bridge.actions ORDER BY id")


def test_each_action_has_its_row(app: App, store: Store, console: Client) -> None:
    """Retry, drop and set do what the commands do, and leave who, where from, what and how it ended."""
    (_, first), (_, second) = die(app, store), die(app, store)
    assert act(console, "retry", first)["outcome"] == "retried"
    assert act(console, "drop", second)["outcome"] == "dropped"
    assert act(console, "drop", second) == {"outcome": "nothing", "state": "cancelled"}
    assert act(console, "set", CAMILLE, {"grouping_delay": 3}) == {"outcome": "set"}
    assert act(console, "set", "default", {"grouping_delay": -1})["outcome"] == "refused"
    assert app.value("SELECT grouping_delay FROM bridge.policy(%s)", CAMILLE) == 3
    assert written(app) == [
        ("Ada", "192.0.2.7", "retry", str(first), "retried"),
        ("Ada", "192.0.2.7", "drop", str(second), "dropped"),
        ("Ada", "192.0.2.7", "drop", str(second), "nothing"),
        ("Ada", "192.0.2.7", "set", f'{CAMILLE} {{"grouping_delay": 3}}', "set"),
        ("Ada", "192.0.2.7", "set", 'default {"grouping_delay": -1}', "refused"),
    ]
    newest = console.value("SELECT bridge.latest_actions(1)")
    assert (newest["on_what"], newest["outcome"]) == ('default {"grouping_delay": -1}', "refused")


def test_no_action_without_its_row_and_no_row_without_its_action(app: App, store: Store, console: Client) -> None:
    """If either cannot be written, neither is."""
    _, turn = die(app, store)
    app.rows("ALTER TABLE bridge.actions ADD CONSTRAINT full_disk CHECK (what <> 'drop')")
    with pytest.raises(psycopg2.errors.CheckViolation):
        act(console, "drop", turn)
    assert app.value("SELECT state FROM bridge.turns WHERE id = %s", turn) == "dead"
    with closing(psycopg2.connect(app.urls.admin)) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT FROM bridge.turns WHERE id = %s FOR UPDATE", (turn,))
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            act(console, "retry", turn)
    for what, on in (("delete", turn), ("retry", "x"), ("set", "x")):
        with pytest.raises(psycopg2.Error):
            act(console, what, on)
    assert written(app) == []


def test_the_run_time_role_changes_no_row_of_the_past(app: App, console: Client) -> None:
    """What was done stays as it was written: the console's role has no right on the table."""
    act(console, "set", "default", {"max_merges": 2})
    for statement in ("UPDATE bridge.actions SET who = 'x'", "DELETE FROM bridge.actions", "TABLE bridge.actions"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            console.rows(statement)
    assert len(written(app)) == 1


def test_the_story_of_a_conversation(app: App, store: Store, console: Client) -> None:
    """By the match or by any of its messages: every turn and event in order, and no text."""
    match = app.old_match()
    first, turn = write(app, store, match)
    token = uuid4()
    assert store.claim(turn, token).name == "claimed"
    second, newer = write(app, store, match)
    store.finish(turn, token, CANARY, pause=0)
    assert app.value("SELECT state FROM bridge.turns WHERE id = %s", turn) == "cancelled"
    third = app.write(match, CANARY)  # nobody has grouped it
    stories = [console.value("SELECT bridge.story(%s, 50)", each) for each in (match, first, second, third)]
    assert all(story == stories[0] for story in stories)
    story = stories[0]
    assert story["match_id"] == match
    assert [(each["turn_id"], each["state"], each["reason"]) for each in story["turns"]] == [
        (turn, "cancelled", "superseded"),
        (newer, "queued", None),
    ]
    assert [(each["message_id"], each["turn_id"]) for each in story["events"] if each["kind"] == "message"] == [
        (first, newer),
        (second, newer),
        (third, None),
    ]
    assert CANARY not in json.dumps(story)
    assert console.value("SELECT bridge.story(%s, 50)", str(uuid4())) is None
    assert len(console.value("SELECT bridge.story(%s, 1)", match)["events"]) == 1


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (f"ValueError: {CANARY}", "ValueError"),
        ("TimeoutError", "TimeoutError"),
        (f"23514 text_check (column content of table public.messages) {CANARY}", "23514"),
        (f"{CANARY} {CANARY}", None),
        (f"{CANARY}: x", None),
        ("été: x", None),
    ],
)
def test_of_an_error_only_its_type_is_told(app: App, store: Store, console: Client, error: str, shown: str) -> None:
    """The words of an error may quote a message: the console never reads them."""
    match, turn = die(app, store)
    app.rows("UPDATE bridge.turns SET last_error = %s WHERE id = %s", error, turn)
    story = console.value("SELECT bridge.story(%s, 50)", match)
    assert story["turns"][-1]["error"] == shown
    assert CANARY not in json.dumps(story)


def test_the_bots_and_what_they_owe(app: App, store: Store, console: Client) -> None:
    """Each bot with a row, a turn under way or a recent one; what it sets and what it owes."""
    silent = str(uuid4())
    set_policy(app.urls, silent, max_merges=1)
    write(app, store, app.old_match())
    die(app, store)
    bots = {each["bot"]: each for (each,) in console.rows("SELECT bridge.bots_load(100, 100)")}
    assert list(bots)[:2] == ["environment", "default"]
    assert bots["default"]["values"] == {"grouping_delay": 0}
    assert (bots[CAMILLE]["queued"], bots[CAMILLE]["dead"], bots[CAMILLE]["values"]) == (1, 1, {})
    assert (bots[silent]["queued"], bots[silent]["values"]) == (0, {"max_merges": 1})
    assert len(console.rows("SELECT bridge.bots_load(1, 100)")) == 3


def test_the_late_turns_come_first_overdue_first(app: App, store: Store, console: Client) -> None:
    """What is due and not taken, in every state, the longest overdue first; what is not due is not among it."""
    turns = [write(app, store, app.old_match())[1] for _ in range(3)]
    for late, turn in enumerate(turns):
        app.rows("UPDATE bridge.turns SET due_at = now() - %s * interval '1 min' WHERE id = %s", late, turn)
    app.rows("UPDATE bridge.turns SET due_at = now() + interval '1 min' WHERE id = %s", turns[0])
    shown = [each["turn_id"] for (each,) in console.rows("SELECT bridge.late_turns(5)")]
    assert shown == [turns[2], turns[1]]
    assert len(console.rows("SELECT bridge.late_turns(1)")) == 1


def test_neither_grows_with_history(app: App, store: Store) -> None:
    """Behind 20,000 finished turns of other conversations and bots, each page reads a handful of rows."""
    match = app.old_match()
    message, _ = write(app, store, match)
    app.rows(
        "WITH made AS (INSERT INTO bridge.turns"
        " (kind, match_id, bot_id, state, opened_at, ended_at, answered_at, reply_message_id)"
        " SELECT 'reply', gen_random_uuid(), gen_random_uuid(), 'answered', now(), now(), now(), gen_random_uuid()"
        " FROM generate_series(1, 20000) RETURNING id, match_id, bot_id)"
        " INSERT INTO bridge.events (kind, match_id, message_id, bot_id, turn_id, captured_at)"
        " SELECT 'message', match_id, gen_random_uuid(), bot_id, id, now() FROM made"
    )
    with closing(Client(app.urls.service)) as fresh:
        fresh.rows("BEGIN")
        for call in (f"story('{match}', 50)", f"story('{message}', 50)", f"why('{message}')", "late_turns(20)"):
            assert fresh.rows(f"SELECT bridge.{call}")[0][0] if "late" not in call else True
        fresh.rows("SELECT bridge.bots_load(100, 1000)")
        read = fresh.rows(
            "SELECT relname, seq_tup_read, idx_tup_fetch FROM pg_stat_xact_all_tables"
            " WHERE relid IN ('bridge.turns'::regclass, 'bridge.events'::regclass) ORDER BY 1"
        )
        fresh.rows("ROLLBACK")
    assert [(name, scanned) for name, scanned, _ in read] == [("events", 0), ("turns", 0)]
    assert [fetched <= 1100 for *_, fetched in read] == [True, True]
