"""What calls of a model cost: reserved before, settled after, and limits that hold whatever dies."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

import pytest

from bridge_service.machine.database import Connection
from bridge_service.machine.ledger import Ledger
from bridge_service.responders.budget import Call
from tests.support.policy import set_policy
from tests.support.rules import CAMILLE, HUGO, LEA, without

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.rules import Bridge, Claim

NOON: Final = "2027-06-15 12:00+02"
TOMORROW: Final = "2027-06-15 22:00:00+00"
"""When the next day begins in Paris, as UTC."""


@pytest.fixture
def ledger(bridge: Bridge) -> Iterator[Ledger]:
    """Give the operator's hands."""
    with closing(Connection(bridge.urls.service, application="operator")) as connection:
        yield Ledger(connection)


def at(bridge: Bridge, time: str) -> None:
    """Let the bridge's clock stand still at a time, to which nothing that is written now is old."""
    set_policy(bridge.urls, ignore_older_days=0)
    bridge.rows("UPDATE bridge_test.clock SET stopped = %s, ahead = '0'", time)


def composing(bridge: Bridge, match: str | None = None) -> Claim:
    """Give a turn that a worker composes."""
    match = match or bridge.match()
    bridge.write(match)
    return bridge.claimed(match)


def call(claim: Claim, number: int = 1, tokens: tuple[int, int] = (60, 40), seconds: float = 30.0) -> Call:
    """Give a call of a claim."""
    return Call(claim.token, number, claim.turn, "model", *tokens, seconds)


def reserve(bridge: Bridge, claim: Claim, number: int = 1, tokens: tuple[int, int] = (60, 40)) -> str:
    """Reserve a call and return the outcome."""
    return str(bridge.store.reserve_call(call(claim, number, tokens))["outcome"])


def budget(bridge: Bridge, kind: str = "bot") -> Any:  # noqa: ANN401 - a namedtuple of the columns
    """Return the one budget of a kind."""
    [found] = bridge._records("SELECT * FROM bridge.budgets WHERE kind = %s", kind)
    return found


def used_up(bridge: Bridge, match: str | None = None, limit: int = 1) -> Claim:
    """Give a turn whose person has used up the calls of the day."""
    set_policy(bridge.urls, limit_calls_person_day=limit)
    claim = composing(bridge, match)
    for number in range(1, limit + 1):
        assert reserve(bridge, claim, number) == "reserved"
    assert reserve(bridge, claim, limit + 1) == "over"
    return claim


# Rule M1: reserved before each call, settled by its key


@without(("reserve_call", "FOR NO KEY UPDATE", ""))
def test_M1_reservations_at_once_never_pass_the_limit(bridge: Bridge) -> None:
    """Of 200 calls that twenty sessions reserve at the same time exactly as many are let through as the limit says."""
    set_policy(bridge.urls, limit_calls_person_day=50)
    claim = composing(bridge)
    stores = [bridge.another_store() for _ in range(20)]
    with ThreadPoolExecutor(20) as threads:
        outcomes = list(threads.map(lambda n: stores[n % 20].reserve_call(call(claim, n))["outcome"], range(1, 201)))

    assert outcomes.count("reserved") == 50
    assert outcomes.count("over") == 150
    assert budget(bridge, "person").calls == 50


@without(("reserve_call", "SET LOCAL synchronous_commit = on", "NULL"))
def test_M1_a_reservation_is_on_disk_before_the_call_is_begun(bridge: Bridge) -> None:
    """Where a limit rules, the reservation commits synchronously, also for a role that does not; a claim does not."""
    bridge.rows(
        "CREATE TABLE commits (setting text); GRANT INSERT ON commits TO PUBLIC;"
        "CREATE FUNCTION note_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO public.commits VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON bridge.calls DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION note_commit()"
    )
    set_policy(bridge.urls, limit_calls_person_day=9)
    claim = composing(bridge)
    bridge.step("SELECT set_config('synchronous_commit', 'off', false)")
    assert reserve(bridge, claim) == "reserved"

    assert bridge.rows("SELECT setting FROM commits") == [("on",)]


@without(("settle_call", "AND tokens_in IS NULL RETURNING", "RETURNING"))
def test_M1_a_call_counts_once(bridge: Bridge) -> None:
    """Reserved again and settled again by the same key, a call counts once, by its first settlement."""
    claim = composing(bridge)
    for _ in range(2):
        assert reserve(bridge, claim) == "reserved"
        assert budget(bridge).calls == budget(bridge, "person").calls == 1
        assert budget(bridge).reserved_in == 60
    assert bridge.store.settle_call(call(claim), (70, 5), "answered")
    assert not bridge.store.settle_call(call(claim), (1, 1), "answered")
    assert reserve(bridge, claim) == "reserved"

    for kind in ("bot", "person"):
        kept = budget(bridge, kind)
        assert (kept.calls, kept.tokens_in, kept.tokens_out, kept.reserved_in, kept.reserved_out) == (1, 70, 5, 0, 0)


@without(("reserve_call", "OR t.token IS DISTINCT FROM p_token", ""))
def test_M1_a_claim_that_was_lost_reserves_nothing(bridge: Bridge) -> None:
    """A worker whose claim a crash forgot, or whose lease was given away, may begin no call."""
    claim = composing(bridge)
    assert bridge.store.reserve_call(Call(uuid4(), 1, claim.turn, "model", 1, 1, 1.0))["outcome"] == "fenced"
    assert not bridge.rows("SELECT FROM bridge.calls")


@without(("settle_call", "b.day = c.day", "false"), ("settle_call", "day = c.day", "day = current_date"))
def test_M1_a_call_is_settled_on_its_own_day_whatever_became_of_its_turn(bridge: Bridge) -> None:
    """A call that was begun before midnight and answered after it counts for the day of its beginning."""
    at(bridge, "2027-06-15 23:59:00+02")
    claim = composing(bridge)
    assert reserve(bridge, claim) == "reserved"
    bridge.rows("DELETE FROM bridge.events; DELETE FROM bridge.turns")
    bridge.advance(120)
    assert bridge.store.settle_call(call(claim), (70, 5), "answered")

    assert [str(budget(bridge).day), budget(bridge).tokens_in, budget(bridge).reserved_in] == ["2027-06-15", 70, 0]


def test_M1_a_call_whose_cost_is_unknown_keeps_its_reservation(bridge: Bridge) -> None:
    """A cancelled call, or one that a crash left, stands against the limit of tokens for the whole day."""
    set_policy(bridge.urls, limit_tokens_bot_day=250)
    claim = composing(bridge)
    assert reserve(bridge, claim, 1) == reserve(bridge, claim, 2) == "reserved"
    bridge.store.settle_call(call(claim, 1), None, "cancelled")

    assert budget(bridge).reserved_in + budget(bridge).reserved_out == 200
    bridge.advance(31)
    claim = composing(bridge)
    assert reserve(bridge, claim) == "over"


@without(("reserve_call", "AND c.ends_at > v_now", "AND false"))
def test_M1_calls_under_way_are_waited_for_and_not_tomorrow(bridge: Bridge) -> None:
    """A call that only reservations of running calls leave no room for is begun once those are settled for less."""
    set_policy(bridge.urls, limit_tokens_bot_day=150)
    first = composing(bridge)
    assert reserve(bridge, first) == "reserved"
    second = composing(bridge)
    assert bridge.store.reserve_call(call(second)) == {"outcome": "later", "retry": 5}
    bridge.store.settle_call(call(first), (30, 10), "answered")

    assert reserve(bridge, second) == "reserved"


# Rule Q0: a turn over a limit is held


@without(("claim", "held = NULL, ", ""), ("push_due", "t.state = 'open' AND t.due_at <= v_now", "t.state = 'open'"))
def test_Q0_a_turn_over_a_limit_waits_until_the_next_day(bridge: Bridge) -> None:
    """It is open and held, costs no attempt, is not pushed before its day, and then it is answered."""
    at(bridge, NOON)
    match = bridge.match()
    claim = used_up(bridge, match)
    held = bridge.store.hold(claim.turn, claim.token)
    assert (held.name, held.details["cause"], held.details["until"]) == ("held", "limit_calls", "2027-06-15T22:00:00Z")

    turn = bridge.turn(claim.turn)
    assert (turn.state, turn.held, turn.attempts, turn.token) == ("open", "limit_calls", 0, None)
    wait = bridge.value("SELECT extract(epoch FROM due_at - %s) FROM bridge.turns WHERE id = %s", TOMORROW, turn.id)
    assert 0 <= wait < 300
    bridge.write(match, "et alors ?")
    bridge.group()
    assert bridge.turn(turn.id).due_at == turn.due_at
    bridge.advance(3600)
    assert not bridge.push()

    at(bridge, "2027-06-16 00:05+02")
    assert [push.turn_id for push in bridge.push()] == [turn.id]
    claim = bridge.claim(turn.id)
    assert claim.outcome.task is not None
    assert len(claim.outcome.task.messages) == 2
    assert bridge.turn(turn.id).held is None


@without(("claim", "v_held := bridge.hold_turn(t.id);", "v_held := NULL;"))
def test_Q0_the_claim_does_not_compose_for_a_person_over_the_limit(bridge: Bridge) -> None:
    """A new conversation of the same person is held at its claim; another person's is composed."""
    used_up(bridge)
    match, other = bridge.match(), bridge.match(HUGO)
    bridge.write(match)
    bridge.write(other, sender=HUGO)

    assert bridge.claim(bridge.pushed(match)).outcome.name == "held"
    [turn] = bridge.turns(other)
    assert bridge.claim(turn.id).outcome.name == "claimed"


@without(("hold_turn", "v_waiting := coalesce(v_waiting, t.id);", "v_waiting := t.id;"))
def test_Q0_a_held_turn_gives_its_events_to_the_waiting_one(bridge: Bridge) -> None:
    """One turn waits in a conversation: it is held with all the messages, and no merge is counted."""
    match = bridge.match()
    claim = used_up(bridge, match)
    bridge.write(match, "deux")
    bridge.group()
    assert bridge.store.hold(claim.turn, claim.token).name == "held"

    old, waiting = bridge.turns(match)
    assert (old.state, old.reason) == ("cancelled", "superseded")
    assert (waiting.state, waiting.held, waiting.merges) == ("open", "limit_calls", 0)
    assert len(bridge.covered(waiting.id)) == 2


def test_Q0_a_hold_is_fenced(bridge: Bridge) -> None:
    """A worker whose lease was given away holds nothing."""
    claim = used_up(bridge)

    assert bridge.store.hold(claim.turn, UUID(int=0)).name == "fenced"
    assert bridge.turn(claim.turn).state == "composing"


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2027-03-28 00:30+01", "2027-03-28T22:00:00Z"),  # a day of 23 hours
        ("2027-10-31 00:30+02", "2027-10-31T23:00:00Z"),  # a day of 25 hours
        ("2027-06-15 23:59:59.9+02", "2027-06-15T22:00:00Z"),
    ],
)
def test_Q0_a_day_ends_at_midnight_of_the_bots_zone(bridge: Bridge, now: str, until: str) -> None:
    """Also on the days on which the clocks change."""
    at(bridge, now)
    set_policy(bridge.urls, grouping_delay=0)
    match = bridge.match()
    bridge.write(match)
    bridge.group()
    bridge.push()
    [turn] = bridge.turns(match)
    set_policy(bridge.urls, limit_calls_person_day=1)
    claim = bridge.claim(turn.id)
    assert reserve(bridge, claim) == "reserved"

    assert bridge.store.hold(turn.id, claim.token).details["until"] == until
    assert bridge.store.reserve_call(call(claim, 2))["outcome"] == "fenced"


@without(("plan_held", "(p.limit_calls_person_day <= t.held_limit) IS NOT TRUE", "false"))
def test_Q0_a_raised_limit_lets_held_turns_go_at_once(bridge: Bridge) -> None:
    """The sweep leaves a held turn alone until the operator raises the limit or takes it away."""
    claim = used_up(bridge)
    bridge.store.hold(claim.turn, claim.token)
    assert bridge.store.plan_held() == 0
    set_policy(bridge.urls, limit_calls_person_day=2)
    assert bridge.store.plan_held() == 1

    assert [push.turn_id for push in bridge.push()] == [claim.turn]
    assert bridge.claim(claim.turn).outcome.name == "claimed"


@without(("metrics", "(o.held_until > v_now) IS NOT TRUE", "true"))
def test_Q0_a_wait_that_policy_ordered_is_no_lateness(bridge: Bridge, ledger: Ledger) -> None:
    """A held turn is open and not overdue; after its day has begun, lateness counts from there."""
    at(bridge, NOON)
    claim = used_up(bridge)
    bridge.store.hold(claim.turn, claim.token)
    bridge.advance(3600)
    status = ledger.status()
    assert (status.open, status.overdue, status.oldest_unanswered_seconds) == (1, 0, 0)
    assert bridge.value("SELECT bridge.metrics() ->> 'oldest_unanswered_at'") is None
    bridge.rows(
        "UPDATE bridge_test.clock SET ahead = '10 s', stopped = (SELECT due_at FROM bridge.turns WHERE id = %s)",
        claim.turn,
    )
    status = ledger.status()
    assert (status.overdue, status.oldest_unanswered_seconds) == (1, 10)


def test_Q0_an_opener_is_held_without_a_word(bridge: Bridge) -> None:
    """The bot says nothing of limits to a person who has not written."""
    set_policy(bridge.urls, over_limit="Je reviens demain.")
    used_up(bridge)
    match = bridge.match(opener=True)
    bridge.group()
    bridge.advance(61)
    bridge.push()

    assert bridge.claim(bridge.opener(match).id).outcome.name == "held"
    assert not bridge.messages(match)


# The text that the bot says over a limit


@without(("known_lines", "WHERE n.match_id = p_match", "WHERE false"))
def test_Q0_the_text_is_said_once_a_day_and_answers_nothing(bridge: Bridge, ledger: Ledger) -> None:
    """Two holds say it once; it is the bot's line in the history, and no answer to `verify` and `replay`."""
    at(bridge, NOON)
    set_policy(bridge.urls, over_limit="Je reviens demain.")
    match = bridge.match()
    claim = used_up(bridge, match)
    bridge.store.hold(claim.turn, claim.token)
    bridge.rows("UPDATE bridge.turns SET due_at = bridge.now() WHERE id = %s", claim.turn)
    bridge.push()
    assert bridge.claim(claim.turn).outcome.name == "held"

    assert bridge.messages(match) == [(LEA, "salut"), (CAMILLE, "Je reviens demain.")]
    assert bridge.value("SELECT bridge.answered_until(%s, %s)", match, LEA) is None
    assert bridge.turn(claim.turn).state == "open"
    at(bridge, "2027-06-16 00:05+02")
    bridge.push()
    task = bridge.claim(claim.turn).outcome.task
    assert task is not None
    assert [(line.from_bot, line.content) for line in task.history] == [(True, "Je reviens demain.")]
    accounts = ledger.verify(30)
    assert (accounts.open, accounts.unaccounted, accounts.doubled) == (1, 0, 0)


def test_Q0_a_turn_is_held_although_the_app_refuses_the_text(bridge: Bridge) -> None:
    """What the app's table does not take is not said, and costs neither the hold nor an attempt."""
    set_policy(bridge.urls, over_limit="Je reviens demain.")
    match = bridge.match()
    claim = used_up(bridge, match)
    bridge.rows("ALTER TABLE messages ADD CHECK (content NOT LIKE 'Je%')")

    assert bridge.store.hold(claim.turn, claim.token).name == "held"
    assert len(bridge.messages(match)) == 1
    assert not bridge.rows("SELECT FROM bridge.notices")


# What it came to


def test_spending_is_read_from_the_budgets(bridge: Bridge, ledger: Ledger) -> None:
    """Today and yesterday of each bot; what is not settled at its reservation; a cost if a price is known."""
    at(bridge, "2027-06-14 12:00+02")
    first = composing(bridge)
    reserve(bridge, first)
    bridge.store.settle_call(call(first), (1_000_000, 500_000), "answered")
    at(bridge, NOON)
    assert ledger.spending(2)[0]["cost"] is None
    set_policy(bridge.urls, openai_price_input=2, openai_price_output=4)
    reserve(bridge, composing(bridge))

    today, yesterday = ledger.spending(2)
    assert (today["days_ago"], today["calls"], today["unsettled"], today["tokens_in"]) == (0, 1, 100, 60)
    assert (yesterday["days_ago"], yesterday["unsettled"], yesterday["cost"]) == (1, 0, 4)
    assert len(ledger.spending(1)) == 1


def test_retention_takes_calls_and_budgets(bridge: Bridge) -> None:
    """What is older than RETENTION_DAYS goes; what is younger stays."""
    at(bridge, NOON)
    set_policy(bridge.urls, over_limit="Demain.")
    claim = used_up(bridge)
    bridge.store.hold(claim.turn, claim.token)
    for days, left in ((29, 1), (31, 0)):
        at(bridge, NOON)
        bridge.advance(days * 86400)
        bridge.store.prune(30, 100)
        for table in ("calls", "notices"):
            assert bridge.value(f"SELECT count(*) FROM bridge.{table}") == left  # noqa: S608 - ours
        assert bridge.value("SELECT count(*) FROM bridge.budgets") == 2 * left
