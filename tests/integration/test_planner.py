from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from freezegun import freeze_time

from bridge_service.errors import DatabaseBusy, DatabaseRefused, DatabaseUnavailable, SchemaMissing
from bridge_service.machine.answers import Due
from bridge_service.telemetry.signals import PostgresLost, PostgresRefused, Pruned, SchemaAbsent
from schedulers import planner as module
from schedulers.planner import Planner
from tests.support.app import App
from tests.support.clock import advance, install_clock, stop
from tests.support.policy import set_grouping
from tests.support.recorder import Recorder
from tests.support.store import store_on
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.roles import Urls

NOW: Final = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
NOTHING: Final = Due(None, None, NOW)


class Parts:
    """Stands in for the store and the pusher: what is due, and what goes wrong, is up to the test."""

    def __init__(self) -> None:
        self.due = NOTHING
        self.waits_for_redis = False
        self.errors: list[Exception] = []
        self.prunable: list[int] = []
        self.countable: list[int] = []
        self.passes: queue.Queue[float] = queue.Queue()
        self.sweeps: queue.Queue[float] = queue.Queue()

    def plan_held(self) -> int:
        """Note a sweep of what is held."""
        self.sweeps.put(time.monotonic())
        return 0

    def push_due(self, beat: Callable[[], None]) -> int:
        """Note a pass."""
        beat()
        self.passes.put(time.monotonic())
        if self.errors:
            raise self.errors.pop(0)
        return 0

    def next_due(self) -> Due:
        """Say what is due."""
        return self.due

    def prune(self, retention_days: float, limit: int) -> int:
        """Delete."""
        assert (retention_days, limit) == (30.0, module.PRUNE_BATCH)
        if self.errors:
            raise self.errors.pop(0)
        return self.prunable.pop(0)

    def close_minutes(self, limit: int) -> int:
        """Count minutes."""
        assert limit == module.MINUTES_BATCH
        if self.errors:
            raise self.errors.pop(0)
        return self.countable.pop(0)


class Desk:
    """A planner and what it did."""

    def __init__(self) -> None:
        self.parts = Parts()
        self.told = Recorder()
        self.looks: queue.Queue[float] = queue.Queue()
        self.beats: queue.Queue[float] = queue.Queue()
        self.planner = self.plan_for(self.parts)

    def plan_for(self, store: Any) -> Planner:  # noqa: ANN401 - a store, or what stands in for it
        """Return a planner on a store."""
        pusher: Any = self.parts
        planner = Planner(
            store,
            pusher,
            store,
            look=lambda: self.looks.put(time.monotonic()),
            emit=self.told,
            retention_days=30.0,
        )
        planner.beat = lambda: self.beats.put(time.monotonic())
        return planner

    def start(self) -> None:
        """Start the planner as the process does, and let its first pass go by."""
        self.planner.start()
        self.wait_for_pass()

    def wait_for_pass(self, timeout: float = 5.0) -> float:
        """Return when the next pass was made."""
        return self.parts.passes.get(timeout=timeout)

    def no_pass_for(self, seconds: float) -> None:
        """Fail if there is a pass within so many seconds."""
        with pytest.raises(queue.Empty):
            self.parts.passes.get(timeout=seconds)

    def stop(self) -> None:
        """Stop everything."""
        self.planner.stop(5)
        assert all(thread.name != "planner" for thread in threading.enumerate())
        self.planner.last()  # of a test that started the jobs itself

    def job(self, name: str) -> datetime | None:
        """Return when a job will run; None if there is no such job."""
        job = self.planner._jobs.get_job(name)
        return None if job is None else job.next_run_time


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Give a planner whose sweeps do not come during a test."""
    monkeypatch.setattr(module, "SWEEP_SECONDS", 3600.0)
    desk = Desk()
    yield desk
    desk.stop()


@pytest.fixture
def paused(desk: Desk) -> Desk:
    """Give a planner whose jobs are planned and run by hand only."""
    desk.planner._jobs.start(paused=True)
    return desk


# What is planned


def test_A4_the_two_date_jobs_are_planned_from_the_table(paused: Desk) -> None:  # noqa: N802 - the rule's name
    """`flush` stands at the earliest group and `initiation` at the earliest opener, by PostgreSQL's clock."""
    with freeze_time(NOW):
        database = NOW + timedelta(days=3)  # a clock that is wrong by days changes nothing
        paused.planner._plan(Due(database + timedelta(seconds=15), database + timedelta(seconds=60.5), database))
    assert paused.job("flush") == NOW + timedelta(seconds=15)
    assert paused.job("initiation") == NOW + timedelta(seconds=60.5)


def test_A4_each_plan_replaces_the_one_before(paused: Desk) -> None:  # noqa: N802
    """Earlier, later or none at all: there is never more than one job of a kind, and only while something waits."""
    with freeze_time(NOW):
        for seconds in (15, 5, 30):
            paused.planner._plan(Due(NOW + timedelta(seconds=seconds), NOW + timedelta(seconds=2 * seconds), NOW))
            assert paused.job("flush") == NOW + timedelta(seconds=seconds)
            assert paused.job("initiation") == NOW + timedelta(seconds=2 * seconds)
            assert len(paused.planner._jobs.get_jobs()) == 2
        paused.planner._plan(Due(None, NOW + timedelta(seconds=60), NOW))
        assert paused.job("flush") is None
        assert paused.job("initiation") is not None
        paused.planner._plan(NOTHING)
        paused.planner._plan(NOTHING)
        assert paused.planner._jobs.get_jobs() == []


def test_A4_a_job_only_sets_an_event(paused: Desk) -> None:  # noqa: N802
    """No job of a pass does any work in APScheduler's threads."""
    with freeze_time(NOW):
        paused.planner._plan(Due(NOW + timedelta(seconds=15), NOW + timedelta(seconds=60), NOW))
    for name in ("flush", "initiation"):
        paused.planner._jobs.get_job(name).func()
        assert paused.planner._wanted.is_set()
        paused.planner._wanted.clear()
    assert paused.parts.passes.empty()


def test_A4_a_job_that_is_late_by_hours_is_run(desk: Desk) -> None:  # noqa: N802
    """A process that was frozen over the due time makes its pass when it wakes; by default the job would be dropped."""
    with freeze_time(NOW) as clock:
        desk.planner._jobs.start()
        desk.planner._plan(Due(NOW + timedelta(seconds=15), None, NOW))
        clock.move_to(NOW + timedelta(hours=3))
        desk.planner._jobs.wakeup()
        assert desk.planner._wanted.wait(5)
        eventually(lambda: desk.job("flush") is None)


def test_A4_every_job_has_no_misfire_limit(desk: Desk) -> None:  # noqa: N802
    """Of the interval jobs too none is ever dropped for being late, and several missed ones make one."""
    desk.start()
    desk.planner._plan(Due(NOW + timedelta(hours=1), NOW + timedelta(hours=1), NOW))
    jobs = {job.id: job for job in desk.planner._jobs.get_jobs()}
    assert set(jobs) == {"push_sweep", "look_sweep", "prune", "minutes", "flush", "initiation"}
    assert all(job.misfire_grace_time is None and job.coalesce for job in jobs.values())


def test_A4_a_job_runs_while_its_predecessor_is_not_done(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: N802
    """With one instance at a time the second would be skipped and deleted, and its group wait for the sweep."""
    entered: queue.Queue[None] = queue.Queue()
    release = threading.Event()

    class SlowEvent(threading.Event):
        def set(self) -> None:
            entered.put(None)
            release.wait(5)

    desk.planner._jobs.start()
    monkeypatch.setattr(desk.planner, "_wanted", SlowEvent())
    for _ in range(2):
        desk.planner._plan(Due(NOW + timedelta(milliseconds=1), None, NOW))
        entered.get(timeout=5)
    release.set()


def test_stopping_while_a_job_is_handed_out_ends_no_thread_with_a_traceback(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """APScheduler's thread hands a job out and then removes it; a stop in between has removed it already."""
    jobs = desk.planner._jobs
    stops: list[threading.Thread] = []
    ended: queue.Queue[object] = queue.Queue()
    monkeypatch.setattr(threading, "excepthook", lambda trouble: ended.put(trouble.exc_value))
    jobs.start()
    hand_out = jobs._lookup_executor("default").submit_job

    def stop_meanwhile(job: object, run_times: object) -> None:
        hand_out(job, run_times)
        stops.append(threading.Thread(target=desk.planner.last))
        stops[0].start()
        eventually(lambda: not jobs.running)

    monkeypatch.setattr(jobs._lookup_executor("default"), "submit_job", stop_meanwhile)
    thread = jobs._thread
    desk.planner._plan(Due(NOW + timedelta(milliseconds=1), None, NOW))
    thread.join(5)
    stops[0].join(5)
    assert not thread.is_alive()
    assert ended.empty()


@pytest.mark.parametrize("late", [0.0, 0.001, 100.0])
def test_what_is_due_already_is_pushed_by_another_pass(paused: Desk, late: float) -> None:
    """No job is planned in the past."""
    paused.planner._plan(Due(NOW - timedelta(seconds=late), None, NOW))
    assert paused.planner._wanted.is_set()
    assert paused.planner._jobs.get_jobs() == []


def test_what_is_due_while_redis_is_away_makes_no_pass(paused: Desk) -> None:
    """The probe of every second is enough; a busy loop would not bring Redis back."""
    paused.parts.waits_for_redis = True
    paused.planner._plan(Due(NOW - timedelta(seconds=1), NOW - timedelta(seconds=1), NOW))
    assert not paused.planner._wanted.is_set()


# The passes


def test_the_first_pass_comes_at_once(desk: Desk) -> None:
    """At the start nobody knows what is due."""
    began = time.monotonic()
    desk.planner.start()
    assert desk.wait_for_pass() - began < 1


def test_a_wish_makes_a_pass_at_once(desk: Desk) -> None:
    """A bell that something is due earlier than planned is heeded in no time, whatever is planned."""
    desk.parts.due = Due(NOW + timedelta(hours=1), None, NOW)
    desk.start()
    desk.no_pass_for(0.1)
    wished = time.monotonic()
    desk.planner.wake()
    assert desk.wait_for_pass() - wished < 0.5


def test_a_date_job_makes_a_pass_in_its_time(desk: Desk) -> None:
    """The pass comes when the group is due: not before, and at most half a second after."""
    desk.parts.due = Due(NOW + timedelta(seconds=0.3), None, NOW)
    began = time.monotonic()
    desk.start()
    desk.parts.due = NOTHING
    assert 0.29 < desk.wait_for_pass() - began < 0.8
    desk.no_pass_for(0.1)


def test_many_wishes_make_few_passes(desk: Desk) -> None:
    """Passes are PASS_SECONDS apart at least, and the last wish is never lost."""
    desk.start()
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        last = time.monotonic()
        desk.planner.wake()
    passes: list[float] = []

    def caught_up() -> None:
        passes.extend(desk.parts.passes.get() for _ in range(desk.parts.passes.qsize()))
        assert passes[-1] >= last

    eventually(caught_up)
    assert 2 <= len(passes) <= 0.4 / module.PASS_SECONDS + 2


def test_the_sweeps_come_by_themselves(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any bell there is a pass, a look at what nobody announced and at what is held, every few seconds."""
    assert module.SWEEP_SECONDS == 3600.0
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.05)
    desk.start()
    for _ in range(3):
        desk.wait_for_pass()
        desk.looks.get(timeout=5)
        desk.parts.sweeps.get(timeout=5)


def test_when_no_job_comes_the_thread_sweeps_by_itself(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on the wall that is set back stops APScheduler for hours, and the bridge not at all."""
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(desk.planner, "first", lambda: desk.planner._jobs.start(paused=True))
    desk.planner.start()
    for _ in range(3):
        desk.wait_for_pass()
        desk.looks.get(timeout=5)


def test_while_redis_is_away_a_pass_comes_every_second(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pusher's probe needs no bell."""
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)
    desk.parts.waits_for_redis = True
    desk.start()
    for _ in range(3):
        desk.wait_for_pass()
    assert desk.looks.empty()


def test_each_turn_of_the_loop_is_a_beat(desk: Desk) -> None:
    """The watchdog hears of every pass."""
    desk.start()
    desk.beats.get(timeout=5)
    while not desk.beats.empty():
        desk.beats.get()
    desk.planner.wake()
    desk.beats.get(timeout=5)


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (DatabaseUnavailable("gone"), PostgresLost("gone")),
        (SchemaMissing("no schema"), SchemaAbsent()),
        (DatabaseRefused("no right"), PostgresRefused("no right")),
    ],
)
def test_a_pass_that_failed_is_told_of_and_made_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, error: Exception, event: object
) -> None:
    """Nobody has to ask for it, and it goes on for as long as it takes."""
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    desk.parts.errors = [error, error]
    desk.start()
    desk.wait_for_pass()
    desk.wait_for_pass()
    assert desk.told.signals == [event, event]
    desk.no_pass_for(0.1)


def test_a_pass_that_met_a_lock_is_made_again_without_a_word(desk: Desk) -> None:
    """Another process is at work there; that is no trouble."""
    desk.parts.errors = [DatabaseBusy("locked")]
    desk.start()
    desk.wait_for_pass()
    assert desk.told.signals == []


def test_an_error_that_nobody_foresaw_ends_the_thread(desk: Desk) -> None:
    """It ends the process, so that the platform starts another one, instead of never pushing again."""
    error = ZeroDivisionError()
    crashes: list[object] = []
    desk.planner.crash = lambda *crash: crashes.append(crash)
    desk.parts.errors = [error]
    desk.planner.wake()
    desk.planner.run()
    assert crashes == [("planner", error)]


# Start and stop


def test_a_stop_ends_the_wait_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the idle wait nor the wait after an error holds it up; twice is harmless."""
    monkeypatch.setattr(module, "RETRY_SECONDS", 3600.0)
    desk.parts.errors = [DatabaseUnavailable("gone")]
    desk.start()
    desk.stop()
    desk.planner.stop()
    assert not desk.planner._jobs.running


def test_a_stop_before_the_start_is_harmless(desk: Desk) -> None:
    """A process that is told to end while it still waits for PostgreSQL stops what it never started."""
    desk.planner.stop()
    desk.planner.run()
    assert desk.parts.passes.empty()


def test_a_pass_under_way_outlives_the_stop(desk: Desk) -> None:
    """Its plan comes after APScheduler was shut down, and nothing rises."""
    desk.start()
    desk.planner._jobs.shutdown(wait=False)
    for due in (Due(NOW + timedelta(seconds=1), None, NOW), NOTHING):
        desk.planner._plan(due)


# Retention


def test_pruning_goes_on_until_nothing_is_left(desk: Desk) -> None:
    """All batches, told once; and not a word when there was nothing."""
    desk.parts.prunable = [1000, 17, 0]
    desk.planner._prune()
    assert desk.told.signals == [Pruned(1017)]
    desk.parts.prunable = [0]
    desk.planner._prune()
    assert len(desk.told.signals) == 1


def test_a_stop_ends_the_pruning(desk: Desk) -> None:
    """The batch under way is the last one: a process that is told to end does not stay for all the others."""

    class Endless:
        def prune(self, retention_days: float, limit: int) -> int:
            assert not planner.stopping.is_set()
            planner.stop()
            del retention_days
            return limit

    planner = desk.plan_for(Endless())
    planner._prune()
    assert desk.told.signals == [Pruned(module.PRUNE_BATCH)]


HANGS: Final = """
import threading, time
from datetime import UTC, datetime
from types import SimpleNamespace
from schedulers.planner import Planner

called = threading.Event()
store = SimpleNamespace(prune=lambda *_: (called.set(), threading.Event().wait()))
pusher = SimpleNamespace(waits_for_redis=True)
planner = Planner(store, pusher, store, look=lambda: None, emit=None, retention_days=30.0)
planner.turn = lambda: planner.pause(60)
planner.start()
while not planner._jobs.running:
    time.sleep(0.01)
planner._jobs.modify_job("prune", next_run_time=datetime.now(UTC))
called.wait()
planner.stop()
"""


def test_pruning_keeps_no_process_alive() -> None:
    """A call that hangs in an outage holds up no end, though the interpreter waits for APScheduler's threads."""
    assert subprocess.run([sys.executable, "-c", HANGS], timeout=30, check=False).returncode == 0


@pytest.mark.parametrize("work", ["_prune", "_close_minutes"])
def test_upkeep_waits_for_a_database_that_is_back(desk: Desk, work: str) -> None:
    """An error is told of and kills nothing; the next run tries again."""
    desk.parts.errors = [DatabaseUnavailable("gone")]
    desk.planner._keep_up(getattr(desk.planner, work))
    assert desk.told.signals == [PostgresLost("gone")]
    desk.parts.errors = [DatabaseBusy("locked")]
    desk.planner._keep_up(getattr(desk.planner, work))
    assert len(desk.told.signals) == 1


def test_minutes_are_counted_until_none_is_left(desk: Desk) -> None:
    """Batch after batch, and no run begins while the upkeep before it still works."""
    desk.parts.countable = [module.MINUTES_BATCH, module.MINUTES_BATCH - 1, 99]
    desk.planner._close_minutes()
    assert desk.parts.countable == [99]
    with desk.planner._keeping:
        desk.planner._begin_minutes()
        assert "minutes" not in {thread.name for thread in threading.enumerate()}


# On a real database


def test_the_plan_follows_the_table(bridge_database: Urls, desk: Desk) -> None:
    """Groups and openers are planned at their own times, and what is pushed or gone is planned no more."""
    install_clock(bridge_database)
    stop(bridge_database)
    with closing(App(bridge_database)) as app, store_on(bridge_database) as store:
        planner = desk.plan_for(store)
        planner._jobs.start(paused=True)

        def planned() -> dict[str, float]:
            began = datetime.now(UTC)
            planner._plan(store.next_due())
            return {job.id: round((job.next_run_time - began).total_seconds()) for job in planner._jobs.get_jobs()}

        set_grouping(bridge_database, 15)
        assert planned() == {}
        app.match()
        store.group()
        assert planned() == {"initiation": 60}
        app.write(app.old_match(), "salut")
        store.group()
        assert planned() == {"flush": 15, "initiation": 60}
        advance(bridge_database, 10)
        assert planned() == {"flush": 5, "initiation": 50}
        advance(bridge_database, 10)
        planner._wanted.clear()
        assert planned() == {"flush": 5, "initiation": 40}  # the job that rings by now; the next pass plans anew
        assert planner._wanted.is_set()
        store.push_due(10)
        assert planned() == {"flush": 10, "initiation": 40}  # until the push is believed lost
        planner.last()
