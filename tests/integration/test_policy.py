"""bridge.bots is the only place of policy: who overrides whom, what is refused, and who writes it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import psycopg2
import psycopg2.errors
import psycopg2.extras
import pytest
from psycopg2 import sql

from bridge_service.errors import ConfigurationError
from bridge_service.machine.database import Connection, Database
from bridge_service.machine.steps import Store
from bridge_service.settings import POLICY, Settings, policy
from bridge_service.settings.fields import FIELDS
from bridge_service.settings.pages import VARIABLES
from bridge_service.settings.policy import OFF, Value
from bridge_service.settings.words import accepts, as_text
from tests.support.roles import APP, SERVICE
from tests.support.rules import CAMILLE, PAUL
from tests.support.service import Service
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bridge_service.demo.servers import RedisServer
    from tests.support.roles import Urls

URLS: Final = {"DATABASE_URL": "postgresql://app@localhost/app", "REDIS_URL": "redis://localhost"}


@pytest.fixture
def admin(bridge_database: Urls) -> Iterator[Any]:
    """Give a cursor of the superuser, which returns dictionaries."""
    with closing(psycopg2.connect(bridge_database.admin)) as connection:
        connection.autocommit = True
        yield connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor)


@pytest.fixture
def store(bridge_database: Urls) -> Iterator[Store]:
    """Give the steps, as the service calls them."""
    with closing(Database(lambda: Connection(bridge_database.service, application="test"))) as database:
        yield Store(database)


def _policy(admin: Any, bot: str | None = None) -> dict[str, Any]:  # noqa: ANN401
    admin.execute("SELECT * FROM bridge.policy(%s)", (bot,))
    [row] = admin.fetchall()
    return dict(row)


def _set(admin: Any, scope: str, bot: str | None = None, **values: Value | None) -> None:  # noqa: ANN401
    admin.execute("INSERT INTO bridge.bots (scope, bot_id) VALUES (%s, %s) ON CONFLICT DO NOTHING", (scope, bot))
    for name, value in values.items():
        admin.execute(
            sql.SQL("UPDATE bridge.bots SET {} = %s WHERE scope = %s AND bot_id IS NOT DISTINCT FROM %s").format(
                sql.Identifier(name)
            ),
            (value, scope, bot),
        )


def test_what_is_built_in_is_what_settings_have_as_defaults(admin: Any) -> None:  # noqa: ANN401
    """Its columns are the variables' names in lower case, and a database without any row uses the defaults."""
    admin.execute("DELETE FROM bridge.bots")
    texts = {v.name.lower(): v.default for v in VARIABLES if v.name.lower() in POLICY}
    built_in = {name: as_text(float(value) if type(value) is int else value) for name, value in _policy(admin).items()}
    more = {"persona": "", "over_limit": "", "active": "true", "distress_words": "", "distress_text": ""}
    assert built_in == {**texts, **more}
    admin.execute(
        "SELECT array_agg(attname ORDER BY attname)::text[] AS names FROM pg_attribute"
        " WHERE attrelid = 'bridge.bots'::regclass AND attnum > 0 AND attname NOT IN ('scope', 'bot_id')"
    )
    assert admin.fetchone()["names"] == sorted(built_in)


def test_the_more_special_row_rules(admin: Any) -> None:  # noqa: ANN401
    """The bot's own row, then `default`, then `environment`, then what is built in; NULL asks the next."""
    _set(admin, "environment", grouping_delay=1, max_merges=1, typing_speed_cps=1)
    _set(admin, "default", grouping_delay=2, max_merges=2)
    _set(admin, "bot", CAMILLE, grouping_delay=4)
    camille, paul = _policy(admin, CAMILLE), _policy(admin, PAUL)
    assert (camille["grouping_delay"], camille["max_merges"], camille["typing_speed_cps"]) == (4, 2, 1)
    assert (paul["grouping_delay"], paul["initiation_probability"]) == (2, 0.5)
    _set(admin, "bot", CAMILLE, grouping_delay=None)
    assert _policy(admin, CAMILLE) == paul


def test_a_pause_between_parts_is_a_pair_too(admin: Any) -> None:  # noqa: ANN401
    """A row that sets one end moves the other one along."""
    _set(admin, "default", part_pause_max=1)
    _set(admin, "bot", CAMILLE, part_pause_min=9)
    assert [_policy(admin, bot)[f"part_pause_{end}"] for bot in (CAMILLE, PAUL) for end in ("min", "max")] == [
        9,
        9,
        1,
        1,
    ]


@pytest.mark.parametrize("pair", ["initiation_delay", "thinking_delay"])
@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({"default": {"max": 1}}, (1, 1)),
        ({"default": {"min": 500}}, (500, 500)),
        ({"environment": {"min": 400, "max": 500}, "bot": {"max": 60}}, (60, 60)),
        ({"default": {"min": 0, "max": 0}, "bot": {"min": 5}}, (5, 5)),
        ({"default": {"min": 5, "max": 9}, "bot": {"min": 7}}, (7, 9)),
    ],
)
def test_no_minimum_is_above_its_maximum(
    admin: Any,  # noqa: ANN401
    pair: str,
    rows: dict[str, dict[str, float]],
    expected: tuple[float, float],
) -> None:
    """A row that sets one of the two moves the other one along, and the more special row has its will."""
    for scope, values in rows.items():
        bot = CAMILLE if scope == "bot" else None
        _set(admin, scope, bot, **{f"{pair}_{end}": value for end, value in values.items()})
    found = _policy(admin, CAMILLE)
    assert (found[f"{pair}_min"], found[f"{pair}_max"]) == expected


NUMBERS: Final = [
    name for name in POLICY if name != "ignore_older_days" and "number" in accepts(FIELDS[name])
]  # which no bot has of its own


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("scope", ["environment", "default", "bot"])
def test_what_settings_refuse_no_row_takes(admin: Any, name: str, scope: str) -> None:  # noqa: ANN401
    """Every column takes the bounds of its variable, and nothing beyond them."""
    taken = 0
    for text in ("-1", "-0.001", "0", "1", "2", "100", "101", "1e5", "604800", "604801", "1e6", "1e7", "inf", "nan"):
        values = {name: float(text)}
        if OFF.get(name) == float(text):
            continue
        try:
            _read(name, text)
        except ConfigurationError:
            if "whole" in accepts(FIELDS[name]) and float(text) in (-0.001, 1e5, 1e6, 1e7):
                continue  # no whole numbers to settings, to a column they are
            with pytest.raises((psycopg2.errors.CheckViolation, psycopg2.errors.NumericValueOutOfRange)):
                _set(admin, scope, CAMILLE if scope == "bot" else None, **values)
        else:
            _set(admin, scope, CAMILLE if scope == "bot" else None, **values)
            taken += 1
    assert taken > 1


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("second_message", ("merge", "queue"), ("both", "")),
        ("timezone", ("UTC", "America/New_York"), ("Europe/Pariss", "")),
        ("openai_model", ("llama3.2:3b", "@cf/meta/llama-3"), ("two words", '{"a": 1}', "m" * 201)),
        ("openai_fallback_model", ("none", "m"), ("two words",)),
        ("openai_temperature", ("-1",), ("-0.5",)),
        ("limit_calls_person_day", ("0",), ("-1",)),
        ("persona", ("You are Camille.", "none"), ("", "p" * 20001)),
        ("over_limit", ("À demain !",), ("", "o" * 2001)),
        ("grouping_mode", ("fixed", "sliding"), ("other", "")),
        ("quiet_hours", ("22:30-07:00", "00:00-23:59", "none"), ("7:00-8:00", "24:00-01:00", "08:00-08:00", "")),
        ("quiet_hours_weekend", ("23:00-09:00", "none"), ("09:00-09:00", "à")),
        ("disclosure", ("Je suis un robot.", "none"), ("", "d" * 2001)),
        ("follow_up_after", ("0", "3600"), ("1",)),
        ("distress_words", ("{}", "{mourir,en finir}"), ('{""}', "{NULL}")),
        ("distress_text", ("Appelez le 3114.", "none"), ("",)),
    ],
)
def test_a_row_takes_what_makes_sense_alone(admin: Any, name: str, good: Sequence[str], bad: Sequence[str]) -> None:  # noqa: ANN401
    """Texts have their forms, and what switches a value off has one."""
    for value in good:
        _set(admin, "default", None, **{name: value})
    for value in bad:
        with pytest.raises((psycopg2.errors.CheckViolation, psycopg2.errors.InvalidParameterValue)):
            _set(admin, "default", **{name: value})


def test_what_a_row_switches_off_is_off(admin: Any) -> None:  # noqa: ANN401
    """`none`, 0, -1 and an empty list end the look for a value at the row that has them."""
    some: dict[str, Value] = {
        "quiet_hours": "22:00-07:00",
        "quiet_hours_weekend": "22:00-07:00",
        "distress_words": ["mourir"],
    }
    for name, off in OFF.items():
        _set(admin, "environment", None, **{name: some.get(name, "3600" if off == 0 else "1")})
        assert _policy(admin)[name] is not None
        _set(admin, "bot", CAMILLE, **{name: off})
        assert (_policy(admin, CAMILLE)[name], _policy(admin)[name] is None) == (None, False)


def _read(name: str, text: str) -> None:
    """Let settings read one value; of a minimum and its maximum both are set, so that bounds alone decide."""
    partner = {name.replace("_min", "_max"): text} if name.endswith("_min") else {name.replace("_max", "_min"): "0"}
    Settings.from_environ({**URLS, **{key.upper(): value for key, value in {**partner, name: text}.items()}})


def test_what_makes_no_sense_is_refused(admin: Any) -> None:  # noqa: ANN401
    """An age of a bot's own, a minimum above its maximum, a second row, and a row of nobody are refused."""
    admin.execute("INSERT INTO bridge.bots (scope, bot_id) VALUES ('bot', %s)", (CAMILLE,))
    for statement in (
        "UPDATE bridge.bots SET ignore_older_days = 1 WHERE scope = 'bot'",
        "UPDATE bridge.bots SET ignore_older_days = 36501 WHERE scope = 'default'",
        "UPDATE bridge.bots SET ignore_older_days = 'NaN' WHERE scope = 'default'",
        "UPDATE bridge.bots SET thinking_delay_min = 3, thinking_delay_max = 2 WHERE scope = 'default'",
        "INSERT INTO bridge.bots (scope) VALUES ('default')",
        "INSERT INTO bridge.bots (scope) VALUES ('bot')",
        "INSERT INTO bridge.bots (scope) VALUES ('other')",
        "INSERT INTO bridge.bots (scope, bot_id) SELECT scope, bot_id FROM bridge.bots WHERE scope = 'bot'",
        "INSERT INTO bridge.bots (scope, bot_id) VALUES ('environment', gen_random_uuid())",
    ):
        with pytest.raises(psycopg2.errors.IntegrityError):
            admin.execute(statement)


def test_an_environment_is_what_it_sets() -> None:
    """Unset and empty variables are left to the next; TEST_MODE sets what it changes; what is no policy stays out."""

    def read(**environ: str) -> dict[str, Value]:
        return policy(Settings.from_environ({**URLS, **environ}), environ)

    assert read() == {}
    assert read(GROUPING_DELAY=" 2.5 ", MAX_MERGES="", IGNORE_OLDER_DAYS="0", PORT="81") == {
        "grouping_delay": 2.5,
        "ignore_older_days": 0,
    }
    assert read(TEST_MODE="true", INITIATION_DELAY_MAX="7") == {
        "initiation_delay_min": 0,
        "initiation_delay_max": 7,
        "initiation_probability": 1,
    }


def test_Q2_the_environment_is_written_only_if_it_differs(store: Store, admin: Any) -> None:  # noqa: ANN401, N802 - its rule
    """The same values again write nothing; others replace all, and the operator's row is not touched."""
    _set(admin, "default", max_merges=7)
    row = "SELECT xmin::text, * FROM bridge.bots WHERE scope = 'environment'"
    assert store.set_environment({"grouping_delay": 2, "ignore_older_days": 0}) is True
    admin.execute(row)
    before = admin.fetchall()
    assert store.set_environment({"grouping_delay": 2, "ignore_older_days": 0}) is False
    admin.execute(row)
    assert admin.fetchall() == before
    assert store.set_environment({"max_merges": 1}) is True
    found = _policy(admin)
    assert (found["grouping_delay"], found["ignore_older_days"], found["max_merges"]) == (15, 15, 7)
    admin.execute("DELETE FROM bridge.bots")
    assert store.set_environment({"max_merges": 1, "unknown": 3}) is True
    assert _policy(admin)["max_merges"] == 1


def test_nobody_else_writes_policy(bridge_database: Urls) -> None:
    """The app's role and the run-time role may not touch the table."""
    for role in (APP, SERVICE):
        with (
            closing(psycopg2.connect(bridge_database.of(role))) as connection,
            connection.cursor() as cursor,
            pytest.raises(psycopg2.errors.InsufficientPrivilege),
        ):
            cursor.execute("UPDATE bridge.bots SET max_merges = 0")


def test_a_scheduler_writes_its_environment_at_its_start(
    bridge_database: Urls,
    redis_server: RedisServer,
    admin: Any,  # noqa: ANN401
) -> None:
    """What it sets rules from then on, and what it no longer sets is taken back at the next start."""
    for environ, expected in (({"IGNORE_OLDER_DAYS": "3"}, 3), ({}, 15)):
        urls = {"DATABASE_URL": bridge_database.service, "REDIS_URL": redis_server.url()}
        with Service({**urls, **environ}) as service:
            service.start_scheduler()

            def written(expected: float = expected) -> bool:
                return bool(_policy(admin)["ignore_older_days"] == expected)

            eventually(written, timeout=30)
