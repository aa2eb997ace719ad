"""The minutes that a scheduler counts for the console's charts, and what the charts read of them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support.app import App, Client
from tests.support.clock import advance, install_clock, stop
from tests.support.store import store_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge_service.machine.steps import Store
    from tests.support.roles import Urls

MINUTE: Final = 60
DAY: Final = 1440
"""Minutes."""

COUNTED: Final = "SELECT answered, lateness_p50, lateness_p99 FROM bridge.minutes WHERE answered > 0 ORDER BY minute"


@pytest.fixture
def app(bridge_database: Urls) -> Iterator[App]:
    """Give the app; the time of the bridge stands ten seconds after a minute began."""
    install_clock(bridge_database)
    stop(bridge_database)
    with closing(App(bridge_database)) as app:
        app.rows("UPDATE bridge_test.clock SET stopped = date_trunc('minute', stopped) + interval '10 s'")
        yield app


@pytest.fixture
def store(app: App) -> Iterator[Store]:
    """Give the machine of that database."""
    with store_on(app.urls) as store:
        yield store


def answered(app: App, ago: float, late: float, *, state: str = "answered") -> None:
    """Make a turn that ended so many seconds ago, and so many after its planned time."""
    app.rows(
        "INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, deliver_at, answered_at, ended_at,"
        " reply_message_id, reason) SELECT 'reply', gen_random_uuid(), gen_random_uuid(), %s, n.at,"
        " n.at - %s * interval '1 s', n.at, n.at, gen_random_uuid(), 'x'"
        " FROM (SELECT bridge.now() - %s * interval '1 s' AS at) n",
        state,
        late,
        ago,
    )


def charts(app: App) -> dict[str, Any]:
    """Return what the console reads, as the run-time role."""
    with closing(Client(app.urls.service)) as client:
        found: dict[str, Any] = client.value("SELECT bridge.charts()")
        return found


def test_a_minute_is_counted_once_and_when_it_is_over(app: App, store: Store) -> None:
    """A minute's replies and their lateness are counted 30 s after its end; what comes later does not change it."""
    for late in (0.1, 0.2, 0.3):
        answered(app, 20, late)
    answered(app, 20, 9, state="cancelled")
    assert store.close_minutes(2 * DAY) == DAY
    assert app.rows(COUNTED) == []
    advance(app.urls, 30)
    assert store.close_minutes(2 * DAY) == 1
    [counted] = app.rows(COUNTED)
    assert counted == (3, pytest.approx(0.2), pytest.approx(0.298))
    assert store.close_minutes(2 * DAY) == 0
    advance(app.urls, MINUTE)
    assert store.close_minutes(2 * DAY) == 1
    assert app.rows(COUNTED) == [counted]


def test_an_outage_of_every_scheduler_is_made_up_for(app: App, store: Store) -> None:
    """Minutes in which no scheduler ran are counted later, a few a call, and at most a day of them."""
    answered(app, 3 * MINUTE, 1)
    answered(app, 25 * 60 * MINUTE, 1)
    assert [store.close_minutes(DAY - 10) for _ in range(3)] == [DAY - 10, 10, 0]
    assert app.value("SELECT sum(answered) FROM bridge.minutes") == 1
    advance(app.urls, 100 * MINUTE)
    assert [store.close_minutes(60) for _ in range(3)] == [60, 40, 0]
    assert app.value("SELECT count(*) FROM bridge.minutes") == DAY + 100


def test_two_schedulers_count_a_minute_once(app: App, store: Store) -> None:
    """The second one waits for the first one's row and finds it there."""
    answered(app, 3 * MINUTE, 1)
    with closing(Client(app.urls.service)) as other:
        other.rows("BEGIN")
        other.rows("SELECT bridge.close_minutes(%s)", DAY)
        other.rows("COMMIT")
        assert store.close_minutes(DAY) == 0
    assert app.value("SELECT sum(answered) FROM bridge.minutes") == 1


def test_the_charts_show_the_last_hour_and_the_last_day(app: App, store: Store) -> None:
    """Sixty minutes, and 144 times ten of them: what was answered, how late, and how often Redis failed."""
    answered(app, 3 * MINUTE, 1)
    answered(app, 3 * MINUTE, 3)
    answered(app, 5 * 60 * MINUTE, 7)
    app.rows(
        "INSERT INTO bridge.incidents (kind, role, happened_at, times) VALUES"
        " ('redis_attempt_failed', 'scheduler', bridge.now() - interval '3 min', 4),"
        " ('postgres_lost', 'scheduler', bridge.now() - interval '3 min', 9)"
    )
    empty = charts(app)
    assert [point["answered"] for point in empty["hour"]] == [None] * 60
    store.close_minutes(DAY)
    shown = charts(app)
    assert (len(shown["hour"]), len(shown["day"])) == (60, 144)
    [point] = [point for point in shown["hour"] if point["answered"]]
    assert (point["answered"], point["p50"], point["retries"]) == (2, pytest.approx(2), 4)
    assert shown["now"] - point["at"] == pytest.approx(190, abs=1)
    assert sum(point["retries"] for point in shown["day"]) == 4
    assert max(point["p99"] or 0 for point in shown["day"]) == pytest.approx(7)
    assert sum(bool(point["answered"]) for point in shown["day"]) == 2


def test_tokens_of_a_minute(app: App, store: Store) -> None:
    """A minute counts the tokens of the calls that began in it; a call without a known cost counts what is reserved."""
    # As migration 0015 has it, which may not have run here.
    app.rows(
        "CREATE TABLE IF NOT EXISTS bridge.calls (token uuid, number int, turn_id bigint, match_id uuid, bot_id uuid,"
        " person_id uuid, model text, day date, begun_at timestamptz, ends_at timestamptz, reserved_in bigint,"
        " reserved_out bigint, tokens_in bigint, tokens_out bigint);"
        " GRANT ALL ON bridge.calls TO PUBLIC"
    )
    for known in (None, 30):
        app.rows(
            "INSERT INTO bridge.calls (token, number, turn_id, match_id, bot_id, person_id, model, day, begun_at,"
            " ends_at, reserved_in, reserved_out, tokens_in, tokens_out)"
            " SELECT gen_random_uuid(), 1, 1, gen_random_uuid(),"
            " gen_random_uuid(), gen_random_uuid(), 'm', now(), n.at, n.at, 100, 10, %s, %s"
            " FROM (SELECT bridge.now() - interval '3 min' AS at) n",
            known,
            known,
        )
    store.close_minutes(DAY)
    assert app.rows("SELECT tokens FROM bridge.minutes WHERE tokens > 0") == [(170,)]
    assert max(point["tokens"] or 0 for point in charts(app)["hour"]) == 170


def test_neither_grows_with_history(app: App) -> None:
    """With 20,000 finished turns and a month of minutes, counting and reading touch a minute and a day of them."""
    app.rows(
        "INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, ended_at, answered_at, reply_message_id)"
        " SELECT 'reply', gen_random_uuid(), gen_random_uuid(), 'answered', n.at, n.at, n.at, gen_random_uuid()"
        " FROM (SELECT bridge.now() - interval '2 days' AS at FROM generate_series(1, 20000)) n"
    )
    app.rows(
        "INSERT INTO bridge.minutes SELECT date_trunc('minute', bridge.now()) - m * interval '1 min', 1, 1, 1"
        " FROM generate_series(3, 43200) m"
    )
    with closing(Client(app.urls.service)) as fresh:
        fresh.rows("BEGIN")
        assert fresh.value("SELECT bridge.close_minutes(10)") == 1
        fresh.rows("SELECT bridge.charts()")
        read = fresh.rows(
            "SELECT relname, seq_tup_read, idx_tup_fetch FROM pg_stat_xact_all_tables"
            " WHERE relid IN ('bridge.turns'::regclass, 'bridge.minutes'::regclass) ORDER BY 1"
        )
        fresh.rows("ROLLBACK")
    assert [(name, scanned) for name, scanned, _ in read] == [("minutes", 0), ("turns", 0)]
    assert [fetched < 2000 for *_, fetched in read] == [True, True]


def test_minutes_go_with_retention(app: App, store: Store) -> None:
    """What is older than RETENTION_DAYS is deleted; newer minutes stay."""
    store.close_minutes(DAY)
    store.prune(0.5, 10)
    assert app.value("SELECT count(*) FROM bridge.minutes") == pytest.approx(DAY / 2, abs=2)
