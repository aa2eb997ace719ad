"""`bots`: an operator sets policy, and what runs follows it; `check`, `report` and the like read it, too."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest

from bridge_service.settings import POLICY
from bridge_service.settings.fields import FIELDS
from bridge_service.settings.policy import COLUMNS
from bridge_service.settings.words import accepts
from tests.integration.test_commands import Operator
from tests.support.app import App
from tests.support.policy import set_grouping, set_policy
from tests.support.roles import APP
from tests.support.rules import CAMILLE, HUGO, LEA, PAUL
from tests.support.service import QUICK, Service
from tests.support.store import store_on
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.demo.servers import RedisServer
    from tests.support.roles import Urls

USAGE: Final = 2
CALM: Final = {"INITIATION_PROBABILITY": "0"}


@pytest.fixture
def app(bridge_database: Urls) -> Iterator[App]:
    """Give the app of a database with the bridge."""
    with closing(App(bridge_database)) as app:
        yield app


@pytest.fixture
def operator(bridge_database: Urls) -> Operator:
    """Give an operator with the run-time role and nothing but the database's URL."""
    return Operator(DATABASE_URL=bridge_database.service)


def _shown(operator: Operator, bot: str) -> dict[str, tuple[Any, str]]:
    document = operator("bots", "show", bot, "--json").document
    assert document["bot"] == bot
    return {name: (told["value"], told["source"]) for name, told in document["policy"].items()}


def test_each_value_is_shown_with_its_source(app: App, operator: Operator) -> None:
    """The bot's row, `default`, `environment` or built in; a minimum that its maximum moved names the maximum's row."""
    with store_on(app.urls) as store:
        store.set_environment({"max_merges": 1, "typing_speed_cps": 9, "grouping_delay": 3})
    assert operator("bots", "set", "default", "MAX_MERGES=2", "thinking_delay_max=1").code == 0
    assert operator("bots", "set", CAMILLE, "Grouping_Delay=2.5").code == 0
    shown = _shown(operator, CAMILLE)
    assert set(shown) == set(COLUMNS)
    assert shown["grouping_delay"] == (2.5, "bot")
    assert shown["max_merges"] == (2, "default")
    assert shown["thinking_delay_min"] == shown["thinking_delay_max"] == (1, "default")
    assert shown["typing_speed_cps"] == (9, "environment")
    assert shown["ignore_older_days"] == (15, "built in")
    assert _shown(operator, PAUL) == _shown(operator, "default")
    assert _shown(operator, PAUL)["grouping_delay"] == (3, "environment")
    assert operator("bots", "list", "--json").document == {
        "bots": [
            {"bot": "environment", "values": {"grouping_delay": 3, "max_merges": 1, "typing_speed_cps": 9}},
            {"bot": "default", "values": {"max_merges": 2, "thinking_delay_max": 1}},
            {"bot": CAMILLE, "values": {"grouping_delay": 2.5}},
        ]
    }
    for words in (("bots", "list"), ("bots", "show", CAMILLE)):
        assert "2.5" in operator(*words).out


@pytest.mark.parametrize("nothing", ["none", "None", ""])
def test_an_override_is_taken_back(operator: Operator, nothing: str) -> None:
    """`none` or nothing leaves the value to the next row."""
    operator("bots", "set", CAMILLE, "MAX_MERGES=7", "GROUPING_DELAY=1")
    assert operator("bots", "set", CAMILLE, f"MAX_MERGES={nothing}").code == 0
    shown = _shown(operator, CAMILLE)
    assert (shown["max_merges"], shown["grouping_delay"]) == ((3, "built in"), (1, "bot"))


@pytest.mark.parametrize("name", [name for name in POLICY if "number" in accepts(FIELDS[name])])
@pytest.mark.parametrize("value", ["-1", "1e9", "nan", "inf", "abc", "99999999999999999999999999", "1.5.5", "٣"])
def test_a_value_out_of_bounds_is_refused_with_the_bounds(operator: Operator, name: str, value: str) -> None:
    """One line names the variable and what it may be, and nothing was set."""
    before = _shown(operator, "default")
    result = operator(
        "bots", "set", "default", "MAX_MERGES=9" if name != "max_merges" else "GROUPING_DELAY=9", f"{name}={value}"
    )
    assert result.code in {1, USAGE}
    assert f"{name.upper()} must be a" in " ".join(result.err.replace("│", " ").split())
    assert " to " in result.err
    assert _shown(operator, "default") == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECOND_MESSAGE", "both"),
        ("TIMEZONE", "Europe/Pariss"),
        ("OPENAI_MODEL", "two words"),
        ("PERSONA", "p" * 20001),
    ],
)
def test_a_text_of_another_form_is_refused_with_the_form(operator: Operator, name: str, value: str) -> None:
    """One line names the variable and what it may be, and does not repeat the value."""
    result = operator("bots", "set", "default", f"{name}={value}")
    assert result.code == USAGE
    assert f"{name} must be" in " ".join(result.err.replace("│", " ").split())
    assert value not in result.err


def test_none_switches_off_what_may_be_absent(operator: Operator) -> None:
    """A bot has no fallback model and no limit where all others have one, and nothing takes that back."""
    operator("bots", "set", "default", "OPENAI_FALLBACK_MODEL=Small", "LIMIT_CALLS_PERSON_DAY=9")
    operator(
        "bots", "set", CAMILLE, "OPENAI_FALLBACK_MODEL=none", "LIMIT_CALLS_PERSON_DAY=none", "PERSONA=Tu es Camille."
    )
    shown = _shown(operator, CAMILLE)
    assert shown["openai_fallback_model"] == shown["limit_calls_person_day"] == (None, "bot")
    assert shown["persona"] == ("Tu es Camille.", "bot")
    assert "OPENAI_FALLBACK_MODEL=none" in operator("bots", "list").out
    operator("bots", "set", CAMILLE, "OPENAI_FALLBACK_MODEL=", "LIMIT_CALLS_PERSON_DAY=")
    shown = _shown(operator, CAMILLE)
    assert (shown["openai_fallback_model"], shown["limit_calls_person_day"]) == (("Small", "default"), (9, "default"))


@pytest.mark.parametrize("pair", ["INITIATION_DELAY", "THINKING_DELAY"])
def test_a_minimum_above_its_maximum_is_refused(operator: Operator, pair: str) -> None:
    """One line names both."""
    result = operator("bots", "set", CAMILLE, f"{pair}_MIN=5", f"{pair}_MAX=4")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert f"{pair}_MIN must not be above {pair}_MAX" in result.err
    assert operator("bots", "set", CAMILLE, "IGNORE_OLDER_DAYS=4").err.count("`default`") == 1


@pytest.mark.parametrize(
    "words",
    [
        ("show", "Camille"),
        ("show", "environment"),
        ("set", "default"),
        ("set", CAMILLE, "MAX_MERGES"),
        ("set", CAMILLE, "SCOPE=bot"),
        ("set", CAMILLE, f"BOT_ID={PAUL}"),
        ("set", CAMILLE, "PORT=80"),
        ("set", CAMILLE, "MAX_MERGES=1", "max_merges=2"),
    ],
)
def test_what_is_no_bot_or_no_policy_is_wrong_usage(operator: Operator, words: tuple[str, ...]) -> None:
    """Nothing is guessed, and nothing is written."""
    before = operator("bots", "list", "--json").document
    assert operator("bots", *words).code == USAGE
    assert operator("bots", "list", "--json").document == before


def test_who_may_not_call_is_told_so(operator: Operator) -> None:
    """The app's role sets nothing, and is told so in one line."""
    result = operator.by(APP)("bots", "set", "default", "MAX_MERGES=1")
    assert (result.code, result.err.count("\n")) == (1, 1)


def test_a_change_holds_from_the_next_step_on(app: App, redis_server: RedisServer, operator: Operator) -> None:
    """While processes run, one bot's delay is set: its next message is answered at once, the other bot's waits."""
    environment = {"DATABASE_URL": app.urls.service, "REDIS_URL": redis_server.url(), **QUICK, "GROUPING_DELAY": "600"}
    with Service(environment) as service:
        service.up()
        camille, paul = app.match(LEA, CAMILLE), app.match(HUGO, PAUL)
        app.write(camille, "avant")
        service.wait_for_line("démarrage timer 600s")
        assert operator("bots", "set", CAMILLE, "GROUPING_DELAY=0.25").code == 0
        again = app.match(HUGO, CAMILLE)
        app.write(paul, "salut", sender=HUGO)
        app.write(again, "salut", sender=HUGO)
        service.wait_for_line("démarrage timer 0.25s")
        app.wait_for_replies(again, "salut")
        assert app.said(paul) == []
        # And the pause: another bot thinks for an hour from its next turn on.
        assert operator("bots", "set", CAMILLE, "THINKING_DELAY_MIN=3600").code == 0
        app.write(again, "et toi ?", sender=HUGO)
        typing = "SELECT extract(epoch FROM deliver_at - claimed_at) FROM bridge.turns"
        typing += " WHERE match_id = %s AND state = 'typing'"
        eventually(lambda: app.rows(typing, again) != [], timeout=20)
        assert float(app.value(typing, again)) >= 3600


def test_a_claim_tells_the_bots_pace(app: App) -> None:
    """The worker learns with the task how fast this bot is, whatever its own environment says."""
    set_grouping(app.urls, 0, probability=0)
    set_policy(app.urls, thinking_delay_min=1, thinking_delay_max=2, typing_speed_cps=3)
    set_policy(app.urls, PAUL, typing_speed_cps=0)
    with store_on(app.urls) as store:
        for person, bot in ((LEA, CAMILLE), (HUGO, PAUL)):
            app.write(app.match(person, bot), "salut", sender=person)
        store.group()
        paces = {}
        for push in store.push_due(10):
            details = store.claim(push.turn_id, uuid4()).details
            paces[details["bot_id"]] = details["pace"]
    pace = {"thinking_delay_min": 1, "thinking_delay_max": 2, "typing_speed_cps": 3}
    assert paces == {CAMILLE: pace, PAUL: {**pace, "typing_speed_cps": 0}}


def test_openers_follow_each_bots_policy(app: App) -> None:
    """In one batch one bot speaks first after its own delay, and the other never does."""
    set_grouping(app.urls, 15, opener=60)
    set_policy(app.urls, PAUL, initiation_probability=0)
    set_policy(app.urls, CAMILLE, initiation_delay_min=7, initiation_delay_max=7)
    with store_on(app.urls) as store:
        camille, paul = app.match(LEA, CAMILLE), app.match(HUGO, PAUL)
        store.group()
    told = "SELECT match_id::text, state, reason, extract(epoch FROM due_at - opened_at)::integer FROM bridge.turns"
    assert set(app.rows(told)) == {(camille, "open", None, 7), (paul, "cancelled", "not_drawn", None)}


def test_a_process_of_the_version_before_keeps_its_own_environment(app: App) -> None:
    """While old and new processes overlap, what an old one passes rules its own steps, as it did before."""
    set_policy(app.urls, grouping_delay=0, max_merges=0, initiation_probability=1)
    app.match()
    app.write(app.old_match(), "salut")
    with store_on(app.urls) as store:
        call = store._database.call
        rows = call("SELECT kind, extract(epoch FROM due_at - opened_at) FROM bridge.group_events(0, 5, 60, 60, 0)")
        assert [(kind, None if due is None else float(due)) for kind, due in rows] == [("match", None), ("message", 5)]
        app.rows("UPDATE bridge.turns SET due_at = bridge.now() WHERE state = 'open'")
        [push] = call("SELECT turn_id FROM bridge.push_due(2000, 500, 10, 20, 20)")
        token = str(uuid4())
        assert call("SELECT bridge.claim(%s, %s, 15, 50) ->> 'outcome'", push[0], token) == [("claimed",)]
        assert call("SELECT bridge.capture_notified(gen_random_uuid(), gen_random_uuid(), 30)") == [(None,)]
        assert call("SELECT bridge.finish(%s, %s, 'oui', 0, 3, 5, 5) ->> 'outcome'", push[0], token) == [("answered",)]
        for step in (
            "deliver_turn(0, 3, 5, 5)",
            "fail(0, gen_random_uuid(), '', 1, true, 5, NULL)",
            "unreadable(0, 'compose', '', 5)",
            "status(5)",
            "metrics(5)",
            "report(60, 5)",
            "heartbeat(gen_random_uuid(), 'worker', 1, 1, 1, false)",
        ):
            call(f"SELECT bridge.{step}")


def test_check_names_environments_that_disagree(app: App, redis_server: RedisServer, operator: Operator) -> None:
    """A living process whose environment differs is named with its role, the variable and both values."""
    operator.environ["REDIS_URL"] = redis_server.url()

    def finding() -> dict[str, Any]:
        checks = operator("check", "--json").document["checks"]
        [found] = [check for check in checks if check["name"] == "policy"]
        return dict(found)

    def beat(role: str, *, ended: bool = False, **environment: float) -> None:
        numbers = {"uptime": 1.0, "rss_bytes": 1, "cpu_seconds": 1.0, "ended": ended}
        store.heartbeat(uuid4(), role, **numbers, environment=environment)  # type: ignore[arg-type]

    with store_on(app.urls) as store:
        assert finding()["ok"]
        beat("scheduler", grouping_delay=5, max_merges=3)
        beat("worker", grouping_delay=5)  # 3 is the default
        beat("worker", ended=True, grouping_delay=9)
        assert finding()["ok"]
        beat("worker", grouping_delay=5, typing_speed_cps=0)
        beat("scheduler", grouping_delay=7.5)
        found = finding()
    assert not found["ok"]
    assert "GROUPING_DELAY is 5 for a scheduler and a worker, 7.5 for a scheduler" in found["detail"]
    assert "TYPING_SPEED_CPS is 0 for a worker, 3.5 for a scheduler and a worker" in found["detail"]
    assert "MAX_MERGES" not in found["detail"]
    assert "bots set default" in found["remedy"]


def test_status_counts_what_is_overdue_by_each_bots_policy(app: App, operator: Operator) -> None:
    """Of two conversations that no scheduler has grouped, only that of the quick bot is overdue."""
    set_policy(app.urls, grouping_delay=600)
    set_policy(app.urls, PAUL, grouping_delay=0)
    app.write(app.old_match(), "salut")
    paul = app.match(HUGO, PAUL)
    app.write(paul, "salut", sender=HUGO)
    operator.environ.update(REDIS_URL="redis://127.0.0.1:1", GROUPING_DELAY="0")
    assert operator("status", "--json").document["overdue"] == 1
