"""`report`, and what the processes note for it: heartbeats and incidents, on a real PostgreSQL."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest

from bridge_service.errors import DatabaseUnavailable
from bridge_service.process import heartbeat
from bridge_service.process.heartbeat import Heartbeat, resident_bytes
from bridge_service.process.incidents import Incidents
from bridge_service.telemetry.signals import FatalError, Pruned, RedisAttemptFailed, RedisGivenUp
from tests.integration.test_commands import CONTENT, HUGO, Chat, Operator
from tests.support.policy import set_grouping, set_policy
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bridge_service.demo.servers import RedisServer
    from tests.support.roles import Urls

SINCE_FIRST: Final = "SELECT kind, role, times, now() - happened_at < interval '5 s' FROM bridge.incidents ORDER BY id"


@pytest.fixture
def chat(bridge_database: Urls) -> Iterator[Chat]:
    """Give a database of the app with the bridge in it."""
    set_grouping(bridge_database, 0, opener=0, probability=0)
    with closing(Chat(bridge_database)) as chat:
        yield chat


@pytest.fixture
def operator(bridge_database: Urls, redis_server: RedisServer) -> Operator:
    """Give an operator of that database, where groups are due at once."""
    return Operator(DATABASE_URL=bridge_database.service, REDIS_URL=redis_server.url(), GROUPING_DELAY="0")


@pytest.fixture
def processes(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Heartbeat]]:
    """Give a scheduler and a worker that live, and that are as small as they are in production."""
    monkeypatch.setattr(heartbeat, "resident_bytes", lambda: 50_000_000)
    beating = [Heartbeat(chat.store, role, {}) for role in ("scheduler", "worker")]
    for each in beating:
        each.start()
    eventually(lambda: chat.rows("SELECT count(*) FROM bridge.processes") == [(2,)])
    yield beating
    for each in beating:
        each.stop()


def checks(document: Any) -> dict[str, bool | None]:  # noqa: ANN401 - as JSON gives it
    """Return the checklist's marks."""
    return {check["name"]: check["ok"] for check in document["checks"]}


# --- report --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("processes")
def test_a_day_without_trouble_is_all_well(operator: Operator, chat: Chat) -> None:
    """Every figure stands where it belongs, nothing failed, and the table bears no ❌."""
    match = chat.match()
    for _ in range(3):
        chat.write(match)
    chat.answer()
    chat.rows("UPDATE bridge.turns SET queued_at = opened_at WHERE kind = 'reply'")  # however busy this machine is
    chat.rows("UPDATE bridge.events SET grouped_at = captured_at + interval '1 ms'")
    result = operator("report", "--json")
    document = result.document
    assert False not in checks(document).values()
    assert result.code == 0
    assert document["messages"] == {
        "captured": 3, "answered": 3, "open": 0, "cancelled": 0, "dead": 0, "set_aside": 0,
    }  # fmt: skip
    assert document["groups"] == {"pushed": 1, "of_three": 1, "early": 0}
    assert document["openers"]["not_drawn"] == 1
    assert (document["detection"]["count"], document["push"]["count"], document["reply"]["count"]) == (4, 1, 1)
    assert 0 < document["detection"]["p50"] <= document["detection"]["max"] < 5000
    assert {process["role"] for process in document["processes"]} == {"scheduler", "worker"}
    shown = operator("report")
    assert "❌" not in shown.out
    assert shown.err == ""
    assert CONTENT not in shown.out


@pytest.mark.usefixtures("processes")
def test_what_went_wrong_is_named_and_nothing_else(operator: Operator, chat: Chat) -> None:
    """A dead turn, a lost message and a slow group fail their checks, one line each, and the command ends with 1."""
    chat.write(chat.match(HUGO), sender=HUGO)
    chat.kill()
    chat.write(chat.match(), unseen=True)
    chat.rows("UPDATE bridge.events SET captured_at = captured_at - interval '3 s' WHERE kind = 'message'")
    result = operator("report", "--json")
    assert {name for name, ok in checks(result.document).items() if ok is False} == {
        "messages answered",
        "no message lost or doubled",
        "few errors",
        "detection within 500 ms",
    }
    assert (result.code, result.err.count("\n")) == (1, 4)
    assert result.document["failed_attempts"] == 5


@pytest.mark.usefixtures("processes")
def test_pushes_are_measured_against_the_delay(operator: Operator, chat: Chat) -> None:
    """A push 200 ms after its time is slow; one before its time breaks the grouping. No environment is asked."""
    set_policy(chat.urls, grouping_delay=2)
    chat.write(chat.match())
    chat.store.group()
    set_policy(chat.urls, grouping_delay=3)  # what the policy became since judges no earlier group
    push = "UPDATE bridge.turns SET state = 'queued', queued_at = opened_at + interval '{} s' WHERE kind = 'reply'"
    chat.rows(push.format(2.2))
    slow = operator("report", "--json").document
    assert slow["push"]["p50"] == pytest.approx(200)
    assert (checks(slow)["push within 50 ms"], checks(slow)["groups stay open for 3 s"]) == (False, True)
    chat.rows(push.format(1.9))
    early = operator("report", "--json").document
    assert early["groups"]["early"] == 1
    assert checks(early)["groups stay open for 3 s"] is False


def test_only_the_time_asked_for_counts(operator: Operator, chat: Chat) -> None:
    """What is older than --since is not counted."""
    chat.write(chat.match())
    chat.answer()
    chat.rows("UPDATE bridge.events SET captured_at = captured_at - interval '2 h'")
    chat.rows("UPDATE bridge.turns SET opened_at = opened_at - interval '2 h', queued_at = queued_at - interval '2 h'")
    chat.store.note_incident("redis_given_up", "scheduler", 1, 7200)
    for since, count in (("1h", 0), ("90m", 0), ("24h", 1)):
        document = operator("report", "--json", "--since", since).document
        assert document["messages"]["captured"] == count
        assert document["groups"]["pushed"] == count
        assert document["incidents"].get("redis_given_up", 0) == count


@pytest.mark.parametrize("since", ["", "h", "0h", "-1h", "24", "1w", "1.5h", "¹h", "99999999d"])
def test_a_span_that_is_none_is_wrong_usage(operator: Operator, since: str) -> None:
    """Nothing is guessed."""
    assert operator("report", "--since", since).code == 2


@pytest.mark.usefixtures("processes")
def test_a_repeated_dead_turn_breaks_no_delay(operator: Operator, chat: Chat) -> None:
    """What `dead retry` opens is due at once, and is not taken for a group that was pushed early."""
    chat.write(chat.match())
    chat.kill()
    assert operator("dead", "retry", "--all").code == 0
    chat.store.push_due(10)
    set_policy(chat.urls, grouping_delay=15)
    assert operator("report", "--json").document["groups"] == {"pushed": 0, "of_three": 0, "early": 0}


# --- Heartbeats ----------------------------------------------------------------------------------


def test_a_process_lives_until_it_ends_or_is_silent(operator: Operator, chat: Chat, processes: list[Heartbeat]) -> None:
    """`status` counts who is alive; one that ended in order is no crash, one that fell silent is."""
    shown = operator("status").out
    assert "schedulers alive           1" in shown
    assert "workers alive              1" in shown

    processes[1].stop()
    document = operator("report", "--json").document
    assert {process["role"]: process["state"] for process in document["processes"]} == {
        "scheduler": "alive",
        "worker": "ended",
    }
    assert (checks(document)["no crash"], checks(document)["processes alive"]) == (True, False)

    chat.rows("UPDATE bridge.processes SET seen_at = seen_at - interval '1 minute' WHERE role = 'scheduler'")
    document = operator("report", "--json").document
    assert checks(document)["no crash"] is False
    assert "schedulers alive           0" in operator("status").out


def test_a_beat_tells_what_the_process_costs(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on beating into one row, keeps the highest memory, and never counts another process's time."""
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.01)
    sizes = iter([3000, 5000])
    monkeypatch.setattr(heartbeat, "resident_bytes", lambda: next(sizes, 4000))
    process = Heartbeat(chat.store, "worker", {})
    process.start()
    eventually(lambda: chat.rows("SELECT rss_bytes FROM bridge.processes") == [(4000,)])
    process.stop()
    process.stop()
    [(peak, cpu, lasted, ended)] = chat.rows(
        "SELECT rss_peak_bytes, cpu_seconds, extract(epoch FROM seen_at - started_at)::float, ended_at IS NOT NULL"
        " FROM bridge.processes"
    )
    assert (peak, ended) == (5000, True)
    assert cpu > 0
    assert 0 < lasted < 30
    assert 1024**2 < resident_bytes() < 8 * 1024**3


def test_a_lost_database_stops_no_heart() -> None:
    """A beat that fails is left out, and stopping does not wait for PostgreSQL."""
    process = Heartbeat(Unreachable(), "worker", {})  # type: ignore[arg-type]
    process.stop()
    process.start()
    process.stop()


# --- Incidents -----------------------------------------------------------------------------------


class Unreachable:
    """A store whose PostgreSQL is away while `away`; it keeps what was noted, and `meanwhile` happens during a call."""

    def __init__(self) -> None:
        self.away = True
        self.noted: list[tuple[str, int, float]] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def note_incident(self, kind: str, role: str, times: int, age: float) -> None:
        """Note, or raise."""
        assert role == "scheduler"
        self.meanwhile()
        if self.away:
            raise DatabaseUnavailable("away")
        self.noted.append((kind, times, age))

    def heartbeat(self, *_: object, **__: object) -> None:
        """Raise."""
        raise DatabaseUnavailable("away")


def test_incidents_are_noted_by_kind(chat: Chat) -> None:
    """Many at once become one row with their number; what is none is left out."""
    incidents = Incidents(chat.store, "scheduler")
    for attempt in (1, 2, 3):
        incidents(RedisAttemptFailed(attempt, 3, "ConnectionError: canary"))
    incidents(RedisGivenUp(3))
    incidents(Pruned(5))
    incidents.start()
    incidents.stop()
    assert chat.rows(SINCE_FIRST) == [
        ("redis_attempt_failed", "scheduler", 3, True),
        ("redis_given_up", "scheduler", 1, True),
    ]


def test_incidents_of_an_outage_come_later() -> None:
    """What PostgreSQL did not take is kept, as one row with its number and the time of the first."""
    now = [100.0]
    store = Unreachable()
    incidents = Incidents(store, "scheduler", clock=lambda: now[0])  # type: ignore[arg-type]
    incidents(RedisGivenUp(3))
    assert not incidents.write()
    now[0] = 160.0
    incidents(RedisGivenUp(3))
    store.meanwhile = lambda: incidents(RedisGivenUp(3))
    assert not incidents.write()
    store.away, store.meanwhile = False, lambda: None
    now[0] = 170.0
    assert incidents.write()
    assert incidents.write()
    assert store.noted == [("redis_given_up", 3, 70.0)]


def test_a_process_that_falls_says_so_first(chat: Chat) -> None:
    """When a fatal error's call returns its row stands, for nothing of the process may run afterwards."""
    incidents = Incidents(chat.store, "worker")
    incidents(FatalError("planner: KeyError"))
    assert chat.rows(SINCE_FIRST) == [("fatal_error", "worker", 1, True)]


def test_old_ones_are_forgotten(chat: Chat) -> None:
    """Incidents and processes go with the retention, and younger ones stay."""
    for age in (0, 10 * 86400):
        chat.store.note_incident("redis_lost", "worker", 1, age)
    for days in (0, 10):
        chat.rows(
            "INSERT INTO bridge.processes SELECT gen_random_uuid(), 'worker', t, t, NULL, 1, 1, 1"
            " FROM (SELECT now() - make_interval(days => %s) AS t) AS n",
            days,
        )
    chat.store.prune(5, 1000)
    assert chat.rows("SELECT count(*) FROM bridge.incidents") == [(1,)]
    assert chat.rows("SELECT count(*) FROM bridge.processes") == [(1,)]


# --- When an event was grouped -------------------------------------------------------------------


def test_an_event_knows_when_it_was_grouped(chat: Chat) -> None:
    """By a scheduler or by the claim that took it along; moving on to another turn does not change it."""
    match = chat.match()
    first = chat.write(match)
    chat.group()
    [push] = chat.store.push_due(10)
    late = chat.write(match)
    ungrouped = "SELECT grouped_at IS NULL FROM bridge.events WHERE message_id = %s"
    assert chat.rows(ungrouped, late) == [(True,)]
    chat.store.claim(push.turn_id, uuid4())
    rows = chat.rows("SELECT message_id, grouped_at > captured_at FROM bridge.events ORDER BY id")
    assert rows == [(None, True), (first, True), (late, True)]
