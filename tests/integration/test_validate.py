"""`validate` on a running service: what it finds, what it says, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from bridge_service.operate.commands import validate_app
from bridge_service.scenes import judge
from tests.integration.test_commands import Operator
from tests.support.app import CAMILLE, HUGO, LEA, App, Client
from tests.support.roles import VALIDATOR
from tests.support.service import QUICK, ROOT, Service
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from bridge_service.demo.servers import RedisServer
    from tests.support.roles import Urls

STEPS: Final = ["messages", "grouping", "initiation", "load", "parts", "takeover", "night", "typing"]
LEFT_OUT: Final = {
    "parts": "left out: the responder answers with one message",
    "typing": "left out: the bridge uses no table typing_events",
}
"""The responder of these tests is `echo`, and their app has no such table."""


@pytest.fixture
def service(bridge_database: Urls, redis_server: RedisServer, redis_client: redis.Redis) -> Iterator[Service]:
    """Give a service of which nothing runs yet."""
    del redis_client  # only asked for because it empties Redis
    urls = {"DATABASE_URL": bridge_database.service, "REDIS_URL": redis_server.url()}
    with Service({**QUICK, "GROUPING_DELAY": "0.5", **urls}) as service:
        yield service


@pytest.fixture
def operator(service: Service) -> Operator:
    """Give an operator with the service's environment, but as a role that may write in the app's tables, too."""
    names = {*QUICK, "DATABASE_URL", "REDIS_URL"}
    return Operator(**{name: service.environment[name] for name in names}).by(VALIDATOR)


@pytest.fixture
def app(bridge_database: Urls) -> Iterator[App]:
    """Give the app on the service's database."""
    with closing(App(bridge_database)) as app:
        yield app


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every stage take three seconds."""
    for stage in ("GROUPED", "PUSHED", "CLAIMED", "ANSWERED"):
        monkeypatch.setattr(judge, f"{stage}_SECONDS", 3.0)


def traces(app: App) -> list[int]:
    """Count the rows in every table that it writes to, or makes the bridge write to."""
    tables = ("profiles", "matches", "messages", "bridge.events", "bridge.turns", "bridge.bots")
    return [app.value(f"SELECT count(*) FROM {table}") for table in tables]  # noqa: S608 - the names above


def test_a_running_service_passes_and_nothing_is_left(service: Service, operator: Operator, app: App) -> None:
    """Every step holds while real people write, whose conversation stays as it is; the run leaves no row."""
    service.up()
    match = app.match(LEA, CAMILLE)
    app.write(match, "salut")
    app.wait_for_replies(match, "salut")
    before = traces(app)

    result = operator("validate", "--json")

    document = result.document
    assert [(step["name"], step["ok"], step["faults"]) for step in document["steps"]] == [
        (name, None if name in LEFT_OUT else True, []) for name in STEPS
    ]
    assert {step["name"]: step["detail"] for step in document["steps"] if step["ok"] is None} == LEFT_OUT
    assert (result.code, document["ok"], document["cleaned_up"]) == (0, True, True)
    assert 0 < document["detection_ms"]["median"] <= document["detection_ms"]["max"]
    assert 0 <= document["push_ms"]["median"] <= document["push_ms"]["max"]
    assert traces(app) == before
    assert len(service.texts("💬 Initiation pour match")) == 1  # though INITIATION_PROBABILITY is 0


def test_it_tells_people_in_a_table(service: Service, operator: Operator) -> None:
    """Each step has a line with its mark, and what was measured one with its figures."""
    service.up()
    result = operator("validate", "--yes")
    assert (result.code, result.err) == (0, "")
    assert result.out.count("✅") == len(STEPS) - len(LEFT_OUT)
    assert "❌" not in result.out
    assert "detection: median" in result.out
    assert "push: median" in result.out


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("runs", "told"), [("scheduler", "is a worker"), ("worker", "is `python -m schedulers` running")]
)
def test_what_does_not_run_is_named(service: Service, operator: Operator, app: App, runs: str, told: str) -> None:
    """One line says which process is missing, the first step alone failed, and nothing is left."""
    process = service.start_scheduler() if runs == "scheduler" else service.start_worker()
    service.wait_until_ready(process)
    before = traces(app)
    result = operator("validate")
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert told in result.err
    assert result.out.count("❌") == 1
    assert result.out.count("not tried") == len(STEPS) - 1
    assert traces(app) == before


def test_the_processes_values_count_and_not_the_commands(service: Service, operator: Operator) -> None:
    """Another GROUPING_DELAY in the command's environment changes no verdict: policy has the scheduler's."""
    service.up()
    operator.environ.update(GROUPING_DELAY="50", THINKING_DELAY_MIN="900", THINKING_DELAY_MAX="900")
    result = operator("validate", "--json")
    assert (result.code, [step["faults"] for step in result.document["steps"]]) == (0, [[]] * len(STEPS))


def test_a_reply_too_many_is_found_out(service: Service, operator: Operator, app: App) -> None:
    """Another program that answers the same people makes the step fail."""
    app.rows(
        "CREATE FUNCTION second_bot() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO messages (match_id, sender_id, content)"
        " SELECT NEW.match_id, p.id, 'moi aussi' FROM profiles p JOIN matches m ON p.id IN (m.user1_id, m.user2_id)"
        " WHERE m.id = NEW.match_id AND p.is_bot"
        " AND NOT EXISTS (SELECT FROM profiles WHERE id = NEW.sender_id AND is_bot);"
        " RETURN NULL; END $$;"
        "CREATE TRIGGER second_bot AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION second_bot()"
    )
    service.up()
    result = operator("validate", "--json")
    assert result.code == 1
    assert "another program answers" in result.document["steps"][0]["faults"][0]


def test_a_role_without_rights_is_told_so(operator: Operator, app: App) -> None:
    """The run-time role may not write into the app's tables: a line names each, and nothing was done."""
    before = traces(app)
    operator.environ["DATABASE_URL"] = app.urls.service
    result = operator("validate", "--json")
    assert result.code == 1
    for table in ("profiles", "matches", "messages"):
        assert f"may not SELECT, INSERT, DELETE in table {table}" in result.err
    assert traces(app) == before


def test_a_role_that_may_not_call_the_bridge_is_told_so(operator: Operator, app: App) -> None:
    """The owner of the app's tables who is a stranger to the bridge is told before anything is written."""
    before = traces(app)
    operator.environ["DATABASE_URL"] = app.urls.app
    result = operator("validate", "--json")
    assert result.code == 1
    assert "may not call the bridge's functions" in result.document["error"]
    assert result.document["steps"] == []
    assert traces(app) == before


def test_an_app_table_that_wants_more_is_named(operator: Operator, app: App) -> None:
    """A column beyond the contract that has to be filled is said to be the reason, and nothing is left."""
    app.rows("ALTER TABLE profiles ADD COLUMN email text; ALTER TABLE profiles ADD CHECK (email <> '') NOT VALID")
    app.rows("UPDATE profiles SET email = 'x'; ALTER TABLE profiles ALTER email SET NOT NULL")
    before = traces(app)
    result = operator("validate", "--json")
    assert result.code == 1
    assert "the app's table profiles takes no row with the contract's columns alone" in result.err
    assert "email" in result.err
    assert traces(app) == before


def test_ctrl_c_cleans_up(service: Service, operator: Operator, app: App) -> None:
    """An interrupted run ends with 1, says so, and leaves nothing, also before any answer."""
    service.wait_until_ready(service.start_scheduler())
    before = traces(app)
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge_service", "validate", "--json"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **operator.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually(lambda: app.value("SELECT count(*) FROM messages WHERE content LIKE 'bridge validate%'") == 10)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert json.loads(out)["interrupted"] is True
    assert err == "interrupted\n"
    assert traces(app) == before


def test_what_cannot_be_deleted_is_said(
    service: Service, operator: Operator, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An app that forbids deleting makes the run fail, and the line tells how to find what is left."""
    monkeypatch.setattr(validate_app, "_CLEAN_SECONDS", 0.0)
    app.rows(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'we keep all'; END $$;"
        "CREATE TRIGGER keep BEFORE DELETE ON messages FOR EACH ROW EXECUTE FUNCTION keep()"
    )
    service.up()
    result = operator("validate", "--json")
    assert (result.code, result.document["ok"], result.document["cleaned_up"]) == (1, False, False)
    assert "we keep all" in result.err
    assert "`bridge validate`" in result.err


@pytest.fixture
def steps(bridge_database: Urls) -> Iterator[Client]:
    """Give a connection of the run-time role's."""
    with closing(Client(bridge_database.service)) as steps:
        yield steps


def test_only_what_is_gone_is_forgotten(app: App, steps: Client) -> None:
    """The cleaning-up function leaves the books of every conversation that the app still has."""
    match = app.match()
    assert steps.value("SELECT bridge.forget_matches(ARRAY[%s]::uuid[])", match) == 0
    app.rows("DELETE FROM matches WHERE id = %s", match)
    assert steps.value("SELECT bridge.forget_matches(ARRAY[%s]::uuid[])", match) == 1


def test_an_opener_is_planned_only_where_one_may_come(app: App, steps: Client) -> None:
    """Whatever was drawn; but never before a scheduler saw the match, between two people, or after a message."""

    def plan(match: str) -> str:
        return str(steps.value("SELECT bridge.plan_opener(%s, 5)", match)["outcome"])

    def group() -> None:
        steps.rows("SELECT bridge.group_events(0, 15, 100, 100, 0)")

    match, people = app.match(), app.match(LEA, HUGO)
    assert plan(people) == "no_bot"
    assert plan(match) == "not_grouped"
    group()
    state = "SELECT state, reason, due_at < now() + interval '6 s' FROM bridge.turns WHERE match_id = %s"
    assert app.rows(state, match) == [("cancelled", "not_drawn", None)]
    assert plan(match) == "planned"
    assert plan(match) == "planned"
    assert app.rows(state, match) == [("open", None, True)]
    app.write(match, "salut")
    assert plan(match) == "message"
    group()
    assert app.rows(state + " AND kind = 'initiation'", match) == [("cancelled", "message", None)]
