"""docs/FOR_YOUR_APP.md and its adapter do what they say, on a database with that app's tables."""

from __future__ import annotations

import re
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg2
import psycopg2.errors
import pytest

from bridge_service.errors import DatabaseRefused
from bridge_service.install.plan import migrate
from bridge_service.install.uninstall import uninstall
from tests.support.clock import install_clock
from tests.support.databases import DEMO_FOLDER, copy_of, execute, install, make_template
from tests.support.policy import set_policy
from tests.support.roles import APP, OWNER, SERVICE
from tests.support.rules import CAMILLE, LEA, PAUL, Bridge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.demo.servers import PostgresServer
    from tests.support.roles import Urls

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE: Final = (DOCS / "FOR_YOUR_APP.md").read_text(encoding="utf-8")
ADAPTER: Final = (DOCS / "adapters" / "bot_profiles.sql").read_text(encoding="utf-8")
GRANTS, DROPS, PROFILE, TYPES, SHOWN, TAKE_OVER, CALLS, CHANGES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
PAUSE, RESUME, STATE = CALLS.splitlines()
EDIT, DELETE, UNMATCH = CHANGES.splitlines()

TABLES: Final = """
    ALTER TABLE profiles ADD city text;
    ALTER TABLE matches ADD unmatched_at timestamptz;
    ALTER TABLE messages ADD is_deleted boolean NOT NULL DEFAULT false;
    CREATE TABLE bot_profiles (
        id                 uuid PRIMARY KEY REFERENCES profiles,
        system_prompt      text,
        bot_personality    text,
        temperature        numeric,
        weekday_start_time time,
        weekday_end_time   time,
        weekend_start_time time,
        weekend_end_time   time,
        is_active          boolean DEFAULT true
    );
"""
PROFILES: Final = """
    INSERT INTO bot_profiles
    SELECT p.id, 'Tu es Camille.', 'Drôle et brève.', 0.8, '07:30', '23:00', '08:00', '23:30'
    FROM profiles p WHERE p.first_name = 'Camille';
    INSERT INTO bot_profiles (id, system_prompt) SELECT p.id, 'Tu es Paul.' FROM profiles p WHERE p.first_name = 'Paul';
    UPDATE profiles SET city = 'Lille' WHERE first_name = 'Léa';
"""

TUESDAY_NIGHT: Final = "2027-06-15 23:30+02"
WEDNESDAY: Final = "2027-06-16 07:30+02"
SATURDAY_NIGHT: Final = "2027-06-19 23:15+02"


@pytest.fixture(scope="session")
def example_template(postgres: PostgresServer) -> str:
    """Give the name of a template with that app's tables and the bridge, installed as the page has it."""
    urls = make_template(postgres, "example_template")
    execute(urls.app, TABLES, (DEMO_FOLDER / "typing_events.sql").read_text(encoding="utf-8"), PROFILES, GRANTS)
    install(urls)
    migrate(urls.owner, app_role=APP)
    execute(urls.owner, ADAPTER)
    execute(urls.owner, PROFILE)
    install_clock(urls)
    return "example_template"


@pytest.fixture
def example(postgres: PostgresServer, example_template: str) -> Iterator[Urls]:
    """Give a fresh database of that app."""
    with copy_of(postgres, example_template) as urls:
        yield urls


@pytest.fixture
def bridge(example: Urls) -> Iterator[Bridge]:
    """Give a fresh bridge of that app, whose clock stands still in the hours of every bot."""
    with closing(Bridge(example)) as bridge:
        at(bridge, "2027-06-15 12:00+02")
        yield bridge


def at(bridge: Bridge, when: str) -> None:
    """Let the bridge's clock stand still at a time, to which nothing that is written now is old."""
    set_policy(bridge.urls, ignore_older_days=0)
    bridge.rows("UPDATE bridge_test.clock SET stopped = %s, ahead = '0'", when)


def says(bridge: Bridge, block: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Run a block of the page as the app's role, with a value for each `$1`, `$2`, `$3`."""
    named = {f"p{number}": value for number, value in enumerate(parameters, 1)}
    with bridge.people.cursor() as cursor:
        cursor.execute(re.sub(r"\$(\d)", r"%(p\1)s", block), named)
        return cursor.fetchall() if cursor.description else []


def told(bridge: Bridge, bot: str = CAMILLE) -> dict[str, Any]:
    """Return what a new claim of a message to this bot is told."""
    match = bridge.match(bot=bot)
    bridge.write(match)
    return dict(bridge.claimed(match).outcome.details)


def change(bridge: Bridge, values: str, bot: str = CAMILLE) -> None:
    """Let the app change a bot's profile."""
    bridge.rows(f"UPDATE bot_profiles SET {values} WHERE id = %s", bot, connection=bridge.people)  # noqa: S608 - ours


def policy(bridge: Bridge, bot: str = CAMILLE) -> tuple[Any, ...]:
    """Return what rules of that which bot_profiles says."""
    columns = "openai_temperature, active, quiet_hours, quiet_hours_weekend"
    [row] = bridge.rows(f"SELECT {columns} FROM bridge.policy(%s)", bot)  # noqa: S608 - ours
    return row


def test_the_page_is_one_page() -> None:
    """It has at most 900 words."""
    assert len(PAGE.split()) <= 900


def test_persona_temperature_and_profile_reach_the_task(bridge: Bridge) -> None:
    """A claim is told the persona in the app's words, its temperature, and what `profile` tells of the person."""
    task = told(bridge)
    assert task["persona"] == "Tu es Camille.\n\nDrôle et brève."
    assert task["model"]["temperature"] == 0.8
    assert task["person_profile"] == {"city": "Lille"}
    assert told(bridge, PAUL)["persona"] == "Tu es Paul."


def test_a_change_of_a_bots_profile_holds_from_its_commit_on(bridge: Bridge) -> None:
    """The bridge's policy follows each change, the last one of a transaction, and a row that is gone takes it back."""
    assert policy(bridge) == (0.8, True, "23:00-07:30", "23:30-08:00")
    assert policy(bridge, PAUL) == (None, True, None, None)
    change(bridge, "temperature = 1.2, weekend_start_time = NULL, weekend_end_time = NULL")
    assert policy(bridge) == (1.2, True, "23:00-07:30", "23:00-07:30")
    change(bridge, "weekday_start_time = '00:00', weekday_end_time = '24:00'")
    assert policy(bridge) == (1.2, True, None, None)

    session = bridge.session()
    for active in ("true", "false"):
        bridge.rows(f"UPDATE bot_profiles SET is_active = {active}", connection=session)  # noqa: S608 - ours
    assert policy(bridge)[1]
    session.commit()
    assert not policy(bridge)[1]
    bridge.rows("DELETE FROM bot_profiles", connection=bridge.people)
    assert policy(bridge) == (None, True, None, None)


@pytest.mark.parametrize(
    ("weekday", "weekend", "quiet"),
    [
        (("07:30", "23:00"), ("09:00", "01:00"), ("23:00-07:30", "23:59-09:00")),
        (("10:00", "02:00"), ("09:00", "23:00"), ("02:00-10:00", "00:00-09:00")),
        (("10:00", "02:00"), ("11:00", "03:00"), ("02:00-10:00", "03:00-11:00")),
        (("09:00", "24:00"), ("09:00", "23:00"), ("00:00-09:00", "00:00-09:00")),
        (("00:00", "20:00"), ("09:00", "01:00"), ("20:00-00:00", "01:00-09:00")),
        ((None, None), ("09:00", "23:00"), (None, None)),
    ],
)
def test_no_night_between_two_schedules_is_without_quiet_hours(
    bridge: Bridge, weekday: tuple[str, str], weekend: tuple[str, str], quiet: tuple[str, str]
) -> None:
    """If only one of two schedules passes midnight, the weekend's ends there, so its nights are of the other's form."""
    bridge.rows(
        "UPDATE bot_profiles SET weekday_start_time = %s, weekday_end_time = %s, weekend_start_time = %s,"
        " weekend_end_time = %s WHERE id = %s",
        *weekday,
        *weekend,
        CAMILLE,
        connection=bridge.people,
    )
    assert policy(bridge)[2:] == quiet


def test_a_temperature_out_of_bounds_is_refused(bridge: Bridge) -> None:
    """The app's transaction fails and names the bound; both sides keep what they had."""
    with pytest.raises(psycopg2.errors.CheckViolation, match=f"refuses bot {CAMILLE}: .*temperature"):
        change(bridge, "temperature = 7")
    assert policy(bridge)[0] == 0.8
    assert bridge.value("SELECT temperature FROM bot_profiles WHERE id = %s", CAMILLE) == Decimal("0.8")


def test_two_transactions_that_change_the_same_bots_do_not_deadlock(bridge: Bridge) -> None:
    """The trigger runs at the commit, so no transaction waits for a bot's row while it holds the lock of policy."""
    first, second = bridge.session(), bridge.session()
    switch_off = "UPDATE bot_profiles SET is_active = false WHERE id = %s"
    bridge.rows(switch_off, CAMILLE, connection=first)
    bridge.execute(second, switch_off, PAUL).result_at_once()
    waits = bridge.execute(first, switch_off, PAUL)
    waits.until_waiting()
    second.commit()
    waits.result()
    first.commit()
    assert not policy(bridge)[1]
    assert not policy(bridge, PAUL)[1]


@pytest.mark.parametrize(
    ("when", "bot", "wakes"),
    [
        (TUESDAY_NIGHT, CAMILLE, WEDNESDAY),
        (TUESDAY_NIGHT, PAUL, None),
        (SATURDAY_NIGHT, CAMILLE, None),
    ],
)
def test_quiet_hours_hold_outside_the_hours_of_the_profile(
    bridge: Bridge, when: str, bot: str, wakes: str | None
) -> None:
    """A bot answers in the morning what came at night; one without a schedule, and in the weekend's hours, at once."""
    at(bridge, when)
    match = bridge.match(bot=bot)
    bridge.write(match)
    bridge.group()
    bridge.advance(16)
    bridge.push()
    [turn] = bridge.turns(match)
    if wakes is None:
        assert (turn.state, turn.held) == ("queued", None)
        return
    assert (turn.state, turn.held) == ("open", "hours")
    at(bridge, wakes)
    bridge.push()
    bridge.advance(301)
    bridge.push()
    assert bridge.turn(turn.id).state == "queued"


def test_an_inactive_bot_marks_off(bridge: Bridge) -> None:
    """A message to it is cancelled as `off`, also after it is active again; the next one is answered."""
    match = bridge.match()
    change(bridge, "is_active = false")
    bridge.write(match)
    bridge.group()
    [turn] = bridge.turns(match)
    assert (turn.state, turn.reason) == ("cancelled", "off")
    assert says(bridge, STATE, match)[0][0]["state"] == "off"
    change(bridge, "is_active = true")
    bridge.write(match)
    assert bridge.deliver(bridge.typing(match)).name == "answered"


def test_a_soft_deleted_message_is_not_answered(bridge: Bridge) -> None:
    """The reply to it is gone, though a worker had written it."""
    match = bridge.match()
    message = bridge.write(match)
    turn = bridge.typing(match)
    says(bridge, DELETE, match, CAMILLE, message)
    assert bridge.value("SELECT count(*) FROM bridge.events WHERE kind = 'change'") == 1
    outcome = bridge.deliver(turn, max_merges=0)
    assert (outcome.name, outcome.details["reason"]) == ("cancelled", "gone")


def test_an_edited_message_is_answered_as_it_is_then(bridge: Bridge) -> None:
    """The draft to the old text is not delivered, and the task of the next claim holds the new one."""
    match = bridge.match()
    message = bridge.write(match, "Tu fais quoi ce soir ?")
    turn = bridge.typing(match)
    says(bridge, EDIT, match, CAMILLE, message)
    assert bridge.deliver(turn).name != "answered"
    [line] = bridge.claim(turn).outcome.details["messages"]
    assert line["content"] == "Tu fais quoi demain ?"


def test_an_unmatched_match_is_not_answered(bridge: Bridge) -> None:
    """Neither is the reply said that was written before, nor is a later message answered."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    says(bridge, UNMATCH, match)
    outcome = bridge.deliver(turn)
    assert (outcome.name, outcome.details["reason"]) == ("cancelled", "gone")
    bridge.write(match)
    claim = bridge.claim(bridge.pushed(match))
    assert (claim.outcome.name, claim.outcome.details["reason"]) == ("cancelled", "gone")


def test_typing_shows_both_ways(bridge: Bridge) -> None:
    """A person who types keeps the group open; the bot's row is on while it types, and off with the reply."""
    bridge.rows("UPDATE bridge_test.clock SET stopped = now(), ahead = '0'")
    set_policy(bridge.urls, CAMILLE, quiet_hours="none", quiet_hours_weekend="none", grouping_delay=0)
    match = bridge.match()
    bridge.write(match)
    bridge.group()
    says(bridge, TYPES, match, LEA)
    assert bridge.push() == []
    bridge.advance(6)
    bridge.push()

    [turn] = bridge.turns(match)
    claim = bridge.claim(turn.id, plain=False)
    bridge.store.finish(claim.turn, claim.token, "coucou", pause=2.0, typing=2.0)
    bridge.store.show_due(50)
    assert says(bridge, SHOWN, match, CAMILLE) == [(True,)]
    bridge.advance(2)
    assert bridge.deliver(claim.turn).name == "answered"
    assert says(bridge, SHOWN, match, CAMILLE) == [(False,)]


def test_a_human_takes_over(bridge: Bridge) -> None:
    """An INSERT in the bot's name ends what the bot owed, and the three functions pause, tell and resume."""
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    says(bridge, TAKE_OVER, match, CAMILLE)
    bridge.group()
    assert (bridge.turn(turn).state, bridge.turn(turn).reason) == ("cancelled", "taken_over")
    assert says(bridge, STATE, match)[0][0]["state"] == "paused"
    assert says(bridge, RESUME, match) == [(True,)]
    assert says(bridge, STATE, match)[0][0] == {"state": "idle", "answers_at": None, "paused_until": None}

    bridge.rows("UPDATE bridge_test.clock SET stopped = now(), ahead = '0'")
    assert says(bridge, PAUSE, match) == [(True,)]
    assert says(bridge, STATE, match)[0][0]["state"] == "paused"


def test_the_file_may_run_again_and_migrate_keeps_it(example: Urls) -> None:
    """A second run changes nothing, and `migrate` leaves the functions alone."""
    execute(example.owner, ADAPTER)
    assert {"persona", "withdrawn", "ended", "profile"} <= set(migrate(example.owner).kept)
    with closing(psycopg2.connect(example.of(SERVICE))) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_proc WHERE pronamespace = 'bridge'::regnamespace AND prosecdef"
            " AND proname IN ('keep_bot_profile', 'after_bot_profile') AND has_function_privilege(oid, 'EXECUTE')"
        )
        assert cursor.fetchone() == (0,)


def test_uninstall_asks_for_the_triggers_first(example: Urls) -> None:
    """It names them; once the owner of the tables has dropped them it goes."""
    with pytest.raises(DatabaseRefused, match="bot_profiles_policy"):
        uninstall(example.owner)
    execute(example.app, DROPS)
    assert uninstall(example.owner)


def test_the_grants_are_to_the_role_of_the_page() -> None:
    """The page and docs/SECURITY.md name the same owner."""
    assert all(line.endswith(f" TO {OWNER};") for line in GRANTS.splitlines())
