"""Quiet hours and the limit of replies in an hour: what waits on purpose, and in which order it goes on."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import pytest

from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import Ledger
from bridge_service.process.telling import signal_of
from bridge_service.telemetry.signals import RepliesLimited, TurnQuiet
from tests.support.policy import set_policy
from tests.support.roles import ADMIN
from tests.support.rules import CAMILLE, HUGO, LEA, PAUL, without

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.rules import Bridge

EVENING: Final = "2027-06-15 21:00+02"
NIGHT: Final = "2027-06-15 23:00+02"
WAKES: Final = datetime(2027, 6, 16, 5, 0, tzinfo=UTC)
"""When a bot wakes that sleeps from 22:30 to 7:00 in Paris."""

HOURS: Final = "22:30-07:00"


@pytest.fixture
def ledger(bridge: Bridge) -> Iterator[Ledger]:
    """Give the operator's hands."""
    with closing(Connection(bridge.urls.service, application="operator")) as connection:
        yield Ledger(connection)


def at(bridge: Bridge, when: str | datetime) -> None:
    """Let the bridge's clock stand still at a time, to which nothing that is written now is old."""
    set_policy(bridge.urls, ignore_older_days=0)
    bridge.rows("UPDATE bridge_test.clock SET stopped = %s, ahead = '0'", when)


def plan(bridge: Bridge, turn: int) -> tuple[str, str | None, datetime]:
    """Return where a turn stands: its state, why it is held, and when it is due."""
    row = bridge.turn(turn)
    return row.state, row.held, row.due_at


def held(bridge: Bridge, sender: str = LEA) -> int:
    """Write to a sleeping bot, and return the turn, which is due and not pushed."""
    match = bridge.match(sender)
    bridge.write(match, sender=sender)
    bridge.group()
    bridge.advance(16)
    assert bridge.push() == []
    [turn] = bridge.turns(match)
    return int(turn.id)


# Rule Q1: two instants


def _minutes(zone: str, day: date, hours: str | None, weekend: str | None) -> list[datetime | None]:
    """Return for each minute of the night before `day` when the bot wakes: by painting every window on a timeline."""
    first = _evening(day)
    paint = [False] * (7 * 1440)
    for ahead in range(-3, 7):
        local = first.date() + timedelta(days=ahead)
        window = weekend if local.weekday() >= 5 else hours
        if window is None:
            continue
        begins, ends = window.split("-")
        tomorrow = local + timedelta(days=ends < begins)
        spans = [
            (_instant(zone, each, time.fromisoformat(text)) - first) // timedelta(minutes=1)
            for each, text in ((local, begins), (tomorrow, ends))
        ]
        for minute in range(max(spans[0], 0), min(spans[1], len(paint))):
            paint[minute] = True
    found: list[datetime | None] = []
    for minute in range(1440):
        end = minute
        while paint[end]:
            end += 1
        found.append(first + timedelta(minutes=end) if end > minute else None)
    return found


def _evening(day: date) -> datetime:
    """Return an instant some hours before the clocks change on a day, in whatever zone."""
    return datetime.combine(day, time(), UTC) - timedelta(hours=12)


def _instant(zone: str, day: date, clock: time) -> datetime:
    """Return the instant of a local time: by the old offset if the clocks skip it, by the new one if they repeat it."""
    first = datetime.combine(day, clock, ZoneInfo(zone))
    second = first.replace(fold=1)
    repeated = first.utcoffset() > second.utcoffset()  # type: ignore[operator]
    return (second if repeated else first).astimezone(UTC)


CHANGES: Final = [
    ("Europe/Paris", date(2026, 3, 29), date(2026, 10, 25)),
    ("Europe/Paris", date(2027, 3, 28), date(2027, 10, 31)),
    ("America/New_York", date(2026, 3, 8), date(2026, 11, 1)),
    ("America/New_York", date(2027, 3, 14), date(2027, 11, 7)),
    ("Australia/Lord_Howe", date(2026, 4, 5), date(2026, 10, 4)),
    ("Australia/Lord_Howe", date(2027, 4, 4), date(2027, 10, 3)),
]
WINDOWS: Final = [
    ("22:30-07:00", "23:00-09:00"),  # across midnight
    ("01:15-02:15", "01:15-02:15"),  # an end that the clock change leaves out or repeats
    ("02:10-03:05", "02:10-02:40"),  # a beginning of that kind
    (None, "01:40-01:50"),  # on Lord Howe the clock changes by half an hour
    ("22:00-06:00", "06:00-22:00"),  # adjacent
    ("09:00-08:00", "08:30-08:15"),  # overlapping, hardly ever awake
    (None, "00:00-12:00"),
]

LOCAL_TIMES: Final = (
    "WHERE w.starts AT TIME ZONE p_timezone <= v_until AT TIME ZONE p_timezone"
    " AND v_until AT TIME ZONE p_timezone < w.ends AT TIME ZONE p_timezone"
)


@without(
    (
        "quiet_until",
        "WHERE w.starts <= v_until AND v_until < w.ends",
        LOCAL_TIMES,
    )
)
@pytest.mark.parametrize(("zone", "spring", "autumn"), CHANGES)
def test_Q1_hours_are_two_instants_in_the_nights_of_the_clock_change(
    bridge: Bridge, zone: str, spring: date, autumn: date
) -> None:
    """Minute by minute the answer is that of a timeline made in Python, and a later minute never wakes earlier."""
    _compare(bridge, zone, spring, autumn)


def test_Q1_hours_hold_where_no_clock_changes(bridge: Bridge) -> None:
    """So too in a zone without summer time, half an hour beside the others."""
    _compare(bridge, "Asia/Kolkata", date(2026, 3, 29), date(2027, 10, 31))


def _compare(bridge: Bridge, zone: str, *days: date) -> None:
    for day in days:
        for hours, weekend in WINDOWS:
            first = _evening(day)
            [[wakes]] = bridge.rows(
                "SELECT array_agg(bridge.quiet_until(%s, %s, %s, t) ORDER BY t)"
                " FROM generate_series(%s::timestamptz, %s::timestamptz, '1 minute') t",
                *(hours, weekend, zone, first, first + timedelta(minutes=1439)),
            )
            assert wakes == _minutes(zone, day, hours, weekend), (day, hours, weekend)
            awake_at = [wake or first + timedelta(minutes=n) for n, wake in enumerate(wakes)]
            assert awake_at == sorted(awake_at)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2027-06-18 22:29:59.9+02", None),  # Friday
        ("2027-06-18 22:30+02", "2027-06-19 07:00+02"),
        ("2027-06-19 06:59:59+02", "2027-06-19 07:00+02"),  # the window of Friday
        ("2027-06-19 07:00+02", None),
        ("2027-06-19 23:30+02", "2027-06-20 10:00+02"),
        ("2027-06-21 00:30+02", "2027-06-21 10:00+02"),  # Monday, in the window of Sunday
    ],
)
def test_Q1_a_window_belongs_to_the_day_on_which_it_begins(bridge: Bridge, now: str, until: str | None) -> None:
    """It begins at its first instant, and is over at its last."""
    assert bridge.value(
        "SELECT bridge.quiet_until(%s, '23:00-10:00', 'Europe/Paris', %s) IS NOT DISTINCT FROM %s::timestamptz",
        *(HOURS, now, until),
    )


# Rule Q1: nothing is pushed in them


@without(("push_due", "v_awake := bridge.hold_due(v_now, p_limit)", "NULL"))
def test_Q1_nothing_is_pushed_in_quiet_hours(bridge: Bridge) -> None:
    """What is due waits for the wake-up and costs no attempt; another bot's turn is pushed; new messages join."""
    set_policy(bridge.urls, CAMILLE, quiet_hours=HOURS)
    at(bridge, NIGHT)
    match, other = bridge.match(), bridge.match(HUGO, PAUL)
    bridge.write(match)
    bridge.write(other, sender=HUGO)
    bridge.group()
    bridge.advance(16)
    assert [push.match_id for push in bridge.push()] == [other]
    [turn] = bridge.turns(match)
    assert plan(bridge, turn.id) == ("open", "hours", WAKES)
    assert (turn.attempts, turn.queued_at, turn.held_until) == (0, None, WAKES)
    bridge.write(match, "tu dors ?")
    bridge.group()
    bridge.advance(3600)
    assert match not in [push.match_id for push in bridge.push()]
    assert plan(bridge, turn.id) == ("open", "hours", WAKES)

    at(bridge, WAKES + timedelta(seconds=1))
    assert [push.turn_id for push in bridge.push() if push.first] == [turn.id]
    claim = bridge.claim(turn.id)
    assert claim.outcome.task is not None
    assert len(claim.outcome.task.messages) == 2
    assert bridge.turn(turn.id).held is None


@without(("hold_due", "FROM unnest(v_open || v_queued) AS d", "FROM unnest(v_open) AS d"))
def test_Q1_a_push_that_was_lost_is_not_made_again(bridge: Bridge) -> None:
    """A queued turn that no worker took is held once its push is due again; a worker that takes it does nothing."""
    set_policy(bridge.urls, quiet_hours=HOURS)
    at(bridge, "2027-06-15 22:29:50+02")
    match = bridge.match()
    bridge.write(match)
    bridge.group()
    bridge.rows("UPDATE bridge.turns SET due_at = bridge.now()")
    [push] = bridge.push()
    bridge.advance(11)
    assert bridge.push() == []
    assert plan(bridge, push.turn_id) == ("open", "hours", WAKES)
    assert bridge.claim(push.turn_id).outcome.name == "nothing"


@without(("claim", "AND bridge.quiet_until(", "AND false AND bridge.quiet_until("))
@pytest.mark.parametrize("state", ["queued", "composing"])
def test_Q1_the_claim_holds_what_was_pushed_before(bridge: Bridge, state: str) -> None:
    """A push that is taken in the hours, and a turn whose worker failed before them, are held and not composed."""
    at(bridge, EVENING)
    match = bridge.match()
    bridge.write(match)
    turn = bridge.pushed(match)
    if state == "composing":
        claim = bridge.claim(turn)
        bridge.store.fail(turn, claim.token, "ValueError", retry=1, counts=True)
    set_policy(bridge.urls, quiet_hours=HOURS)
    at(bridge, NIGHT)
    outcome = bridge.claim(turn).outcome
    assert outcome.name == "held"
    assert signal_of(turn, outcome, "claim") == TurnQuiet(turn, match, "2027-06-16T05:00:00Z")
    assert plan(bridge, turn) == ("open", "hours", WAKES)


@without(("deliver_turn", "bridge.hold_turn(t.id, 'hours')", "NULL"))
@pytest.mark.parametrize("newer", ["", "grouped", "ungrouped"])
def test_Q1_a_reply_whose_time_comes_in_the_hours_is_not_said(bridge: Bridge, newer: str) -> None:
    """Its draft is erased and its messages wait together with the newer ones; no merge is counted."""
    at(bridge, "2027-06-15 22:29+02")
    set_policy(bridge.urls, quiet_hours=HOURS)
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    at(bridge, NIGHT)
    if newer:
        bridge.write(match, "deux")
    if newer == "grouped":
        bridge.group()
    done = bridge.store.deliver_due(16, [])
    assert {turn: "held"} == {each: outcome.name for each, outcome in done.outcomes.items()}
    bridge.group()
    bridge.advance(16)
    assert bridge.push() == []

    assert len(bridge.messages(match)) == 1 + bool(newer)
    waiting = bridge.turns(match)[-1]
    assert (waiting.state, waiting.held, waiting.merges, waiting.draft) == ("open", "hours", 0, None)
    assert len(bridge.covered(waiting.id)) == 1 + bool(newer)


def test_Q1_a_paid_reply_is_said_although_a_limit_is_reached(bridge: Bridge) -> None:
    """The delivery holds for hours alone: the call that reached a limit is the one that wrote this draft."""
    at(bridge, EVENING)
    set_policy(bridge.urls, quiet_hours=HOURS)
    match = bridge.match()
    bridge.write(match)
    turn = bridge.typing(match)
    set_policy(bridge.urls, limit_replies_hour=1, limit_calls_person_day=1)
    assert bridge.deliver(turn).name == "answered"


@without(
    ("push_due", "v_awake := bridge.hold_due(v_now, p_limit)", "NULL"), ("deliver_turn", "bridge.has_hours()", "false")
)
@pytest.mark.parametrize("typing", [False, True], ids=["open", "typing"])
def test_Q1_an_opener_waits_too(bridge: Bridge, *, typing: bool) -> None:
    """It is planned for the wake-up, also if its draft was written before; a message cancels it as ever."""
    at(bridge, "2027-06-15 22:29+02")
    set_policy(bridge.urls, quiet_hours=HOURS)
    match = bridge.match(opener=True)
    if typing:
        set_policy(bridge.urls, initiation_delay_min=0, initiation_delay_max=0)
        bridge.group()
        bridge.push()
        claim = bridge.claim(bridge.opener(match).id)
        bridge.finish(claim)
        at(bridge, NIGHT)
        bridge.deliver(claim.turn)
    else:
        bridge.group()
        at(bridge, NIGHT)
        assert bridge.push() == []
    opener = bridge.opener(match)
    assert plan(bridge, opener.id) == ("open", "hours", WAKES)
    assert bridge.messages(match) == []

    at(bridge, WAKES + timedelta(seconds=1))
    bridge.push()
    assert bridge.opener(match).state == "queued"
    claim = bridge.claim(opener.id)
    bridge.finish(claim)
    bridge.advance(6)
    assert bridge.deliver(opener.id).name == "answered"


def test_Q1_dead_turns_that_are_retried_wait(bridge: Bridge, ledger: Ledger) -> None:
    """The operator's retry of a reply, and of an opener, is held like any other turn."""
    at(bridge, EVENING)
    match, new = bridge.match(), bridge.match(HUGO, opener=True)
    bridge.write(match)
    turn = bridge.pushed(match)
    bridge.rows("UPDATE bridge.turns SET state = 'dead', last_error = 'x', due_at = NULL, ended_at = bridge.now()")
    set_policy(bridge.urls, quiet_hours=HOURS)
    at(bridge, NIGHT)
    for each in (turn, bridge.opener(new).id):
        ledger.retry(each)
    assert bridge.push() == []
    assert plan(bridge, bridge.turns(match)[-1].id) == plan(bridge, bridge.opener(new).id) == ("open", "hours", WAKES)


# Rule Q1: the wake-up


def _crowd(bridge: Bridge, many: int) -> None:
    """Hold the conversations of a bot, which were opened a second apart, in an order that their ids do not have."""
    bridge.rows(
        "INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, due_at, planned_at)"
        " SELECT 'reply', gen_random_uuid(), %s, 'open', o.at, o.at + interval '15 s', o.at + interval '15 s'"
        " FROM (SELECT bridge.now() + make_interval(secs => n * 7919 %% %s) AS at FROM generate_series(1, %s) n) o",
        *(CAMILLE, many, many),
    )


def _push_all(bridge: Bridge) -> list[Any]:
    pushes = []
    while due := bridge.push(500):
        pushes += due
    return pushes


@without(
    ("wake_turns", "ORDER BY t.held_limit, t.due_at, t.opened_at, t.id LIMIT", "ORDER BY t.held_limit, t.id DESC LIMIT")
)
def test_Q1_a_thousand_held_conversations_wake_in_the_order_in_which_they_came(bridge: Bridge) -> None:
    """They are planned over QUIET_SPREAD seconds, a step apart, in batches, and are pushed in this order."""
    set_policy(bridge.urls, quiet_hours=HOURS, quiet_spread=100)
    at(bridge, NIGHT)
    _crowd(bridge, 1000)
    bridge.advance(1100)
    for _ in range(3):
        assert bridge.push(400) == []
    assert bridge.rows("SELECT DISTINCT state, held, due_at FROM bridge.turns") == [("open", "hours", WAKES)]

    at(bridge, WAKES - timedelta(seconds=0.001))
    assert bridge.push() == []
    at(bridge, WAKES + timedelta(milliseconds=1))
    pushes = [push for _ in range(6) for push in bridge.push(100)]
    late = bridge.rows("SELECT extract(epoch FROM held_until - %s)::float FROM bridge.turns ORDER BY opened_at", WAKES)
    assert [seconds for (seconds,) in late] == pytest.approx([rank * 0.1 for rank in range(1000)], abs=0.01)
    for seconds in range(10, 101, 10):
        at(bridge, WAKES + timedelta(seconds=seconds))
        pushed = [push for push in _push_all(bridge) if push.first]
        assert len(pushed) in {99, 100, 101}
        pushes += pushed
    order = bridge.rows("SELECT id FROM bridge.turns ORDER BY opened_at")
    assert [push.turn_id for push in pushes] == [turn for (turn,) in order]
    report = bridge.value("SELECT bridge.report(86400)")
    assert report["groups"]["early"] == 0


@without(("wake_turns", "FOR NO KEY UPDATE SKIP LOCKED; IF NOT FOUND", "; IF NOT FOUND"))
def test_Q1_one_scheduler_at_a_time_plans_the_wake_up(bridge: Bridge) -> None:
    """Another that comes meanwhile waits for nothing and plans nothing; it comes again."""
    set_policy(bridge.urls, quiet_hours=HOURS)
    at(bridge, NIGHT)
    turn = held(bridge)
    at(bridge, WAKES)
    other = bridge.session(ADMIN)
    bridge.rows("SELECT FROM bridge.installation FOR NO KEY UPDATE", connection=other)
    assert bridge.run(lambda store: store.push_due(500)).result_at_once() == []
    assert plan(bridge, turn) == ("open", "hours", WAKES)
    other.rollback()
    bridge.push()
    bridge.advance(1)
    bridge.push()
    assert bridge.turn(turn).state == "queued"


@without(("plan_held", "v_count := bridge.plan_hours(p_limit);", ""))
@pytest.mark.parametrize(
    ("hours", "until"),
    [
        ("none", None),
        ("22:30-06:00", datetime(2027, 6, 16, 4, tzinfo=UTC)),
        ("20:00-09:30", datetime(2027, 6, 16, 7, 30, tzinfo=UTC)),
    ],
)
def test_Q1_held_turns_follow_hours_that_are_changed(bridge: Bridge, hours: str, until: datetime | None) -> None:
    """The sweep frees them, or holds them until the new end; it changes nothing without a change."""
    set_policy(bridge.urls, quiet_hours=HOURS)
    at(bridge, NIGHT)
    turn = held(bridge)
    assert bridge.store.plan_held() == 0
    set_policy(bridge.urls, quiet_hours=hours)
    assert bridge.store.plan_held() == 1
    assert bridge.store.plan_held() == 0
    if until:
        assert plan(bridge, turn) == ("open", "hours", until)
        assert bridge.push() == []
    else:
        bridge.advance(1)
        bridge.push()
        assert bridge.turn(turn).state == "queued"


@without(("wake_turns", "coalesce(r.asleep_until, to_timestamp(", "coalesce(NULL::timestamptz, to_timestamp("))
def test_Q1_a_bot_that_sleeps_on_is_held_anew(bridge: Bridge) -> None:
    """Hours that last more than a day, or were extended in the last seconds, hold again at the first end."""
    set_policy(bridge.urls, quiet_hours="09:00-08:00", quiet_hours_weekend="08:00-10:00", quiet_spread=0)
    at(bridge, "2027-06-18 09:30+02")  # Friday; awake on Saturday at 10:00
    turn = held(bridge)
    assert plan(bridge, turn)[2] == datetime(2027, 6, 19, 7, 30, tzinfo=UTC)  # at most a day away
    at(bridge, "2027-06-19 09:30+02")
    assert bridge.push() == []
    assert plan(bridge, turn) == ("open", "hours", datetime(2027, 6, 19, 8, tzinfo=UTC))
    at(bridge, "2027-06-19 10:00:00.1+02")
    assert [push.turn_id for push in bridge.push()] == [turn]


def test_Q1_a_wait_for_the_wake_up_is_no_lateness(bridge: Bridge, ledger: Ledger) -> None:
    """`status` and `report` count from the turn's own time after the wake-up."""
    set_policy(bridge.urls, quiet_hours=HOURS, quiet_spread=100)
    at(bridge, NIGHT)
    turns = [held(bridge), held(bridge)]
    bridge.advance(3600)
    status = ledger.status()
    assert (status.open, status.overdue, status.oldest_unanswered_seconds) == (2, 0, 0)
    at(bridge, WAKES + timedelta(seconds=1))
    assert [push.turn_id for push in bridge.push()] == turns[:1]
    status = ledger.status()
    assert status.overdue == 0
    assert status.oldest_unanswered_seconds == pytest.approx(1, abs=0.01)
    at(bridge, WAKES + timedelta(seconds=52))
    assert bridge.value("SELECT count(*) FROM bridge.late_turns(10)") == 2
    assert [push.turn_id for push in bridge.push() if push.first] == turns[1:]
    report = bridge.value("SELECT bridge.report(3600)")
    assert report["groups"]["early"] == 0
    assert report["push"]["max"] == pytest.approx(2000, abs=10)


def test_Q1_validate_s_opener_is_planned_anew(bridge: Bridge) -> None:
    """An opener that is held and then planned for another moment is due then, and held again while the bot sleeps."""
    set_policy(bridge.urls, quiet_hours=HOURS)
    at(bridge, NIGHT)
    match = bridge.match(opener=True)
    bridge.group()
    bridge.advance(61)
    bridge.push()
    bridge.value("SELECT bridge.plan_opener(%s, 5)", match)
    bridge.advance(6)
    assert bridge.push() == []
    assert plan(bridge, bridge.opener(match).id) == ("open", "hours", WAKES)


# LIMIT_REPLIES_HOUR


def _said(bridge: Bridge, match: str) -> None:
    bridge.write(match)
    assert bridge.deliver(bridge.typing(match)).name == "answered"


@without(("resting", "LIMIT v_limit) said) THEN", "LIMIT v_limit) said) AND false THEN"))
def test_Q0_a_conversation_above_its_replies_an_hour_waits_for_an_hour(bridge: Bridge) -> None:
    """Another conversation of the bot goes on; after an hour this one does by itself, and all is answered."""
    at(bridge, EVENING)
    set_policy(bridge.urls, limit_replies_hour=2, over_limit="Demain.")
    match = bridge.match()
    _said(bridge, match)
    _said(bridge, match)
    _said(bridge, bridge.match())
    bridge.write(match)
    outcome = bridge.claim(bridge.pushed(match)).outcome
    assert outcome.name == "held"
    told = signal_of(1, outcome, "claim")
    assert isinstance(told, RepliesLimited)
    assert (told.match_id, told.until) == (match, "2027-06-15T20:01:22Z")
    turn = bridge.turns(match)[-1]
    assert plan(bridge, turn.id)[:2] == ("open", "limit_replies")
    assert turn.due_at == bridge.value("SELECT bridge.now() + interval '1 hour'")
    assert "Demain." not in [text for _, text in bridge.messages(match)]
    bridge.write(match, "encore")
    bridge.group()
    bridge.advance(3599)
    assert bridge.push() == []
    assert bridge.store.plan_held() == 0
    bridge.advance(1)
    assert [push.turn_id for push in bridge.push()] == [turn.id]
    claim = bridge.claim(turn.id)
    assert claim.outcome.task is not None
    assert len(claim.outcome.task.messages) == 2


@without(("plan_held", "OR t.held = 'limit_replies' AND (p.limit_replies_hour <= t.held_limit) IS NOT TRUE", ""))
def test_Q0_a_raised_limit_of_replies_frees_at_once(bridge: Bridge) -> None:
    """The sweep makes the turn due when the operator raises LIMIT_REPLIES_HOUR."""
    set_policy(bridge.urls, limit_replies_hour=1)
    match = bridge.match()
    _said(bridge, match)
    bridge.write(match)
    turn = bridge.pushed(match)
    assert bridge.claim(turn).outcome.name == "held"
    assert bridge.store.plan_held() == 0
    set_policy(bridge.urls, limit_replies_hour=2)
    assert bridge.store.plan_held() == 1
    assert [push.turn_id for push in bridge.push()] == [turn]
    assert bridge.claim(turn).outcome.name == "claimed"
