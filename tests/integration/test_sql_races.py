"""The machine's SQL raced by real sessions: writers, schedulers and workers that lose, double, freeze and die.

Nothing is staged: chance decides, and the rows of `messages` tell afterwards whether a promise was broken.
BRIDGE_RACES=10000 writes as many messages instead of what `make test` has time for.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import uuid4

import psycopg2
import psycopg2.errors
import pytest

from tests.support.policy import set_policy
from tests.support.roles import ADMIN, APP, SERVICE
from tests.support.rules import CAMILLE, LEA, WRITE
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.roles import Urls

MESSAGES: Final = int(os.environ.get("BRIDGE_RACES", "1500"))
WRITERS: Final = 4
SCHEDULERS: Final = 2
WORKERS: Final = 5
SEED: Final = 20240229

# All so short that everything overlaps; seconds.
GROUPING_DELAY: Final = 0.04
INITIATION_MAX: Final = 0.3
LEASES: Final = (0.01, 0.1, 1.0)
AGAIN: Final = 0.3
MAX_MERGES: Final = 2
NEVER: Final = 1_000_000

Rows: TypeAlias = "Callable[..., list[tuple[Any, ...]]]"

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Written:
    """What its writer saw of a message; the times are of one monotonic clock."""

    match: str
    began: float
    returned: float
    committed: float = 0.0


@dataclass(slots=True)
class Races:
    """What all threads share."""

    urls: Urls
    matches: list[str] = field(default_factory=list)
    written: dict[str, Written] = field(default_factory=dict)
    delivered: dict[int, float] = field(default_factory=dict)
    queue: list[tuple[int, str]] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    calm: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)


class Actor:
    """A thread with a session and a chance of its own."""

    def __init__(self, races: Races, seed: int, role: str) -> None:
        """Connect as a role of the database; `run` is the thread's body."""
        self.races = races
        self.chance = Random(seed)  # noqa: S311 - the same seed makes the same choices
        self.session = psycopg2.connect(races.urls.of(role))
        self.session.autocommit = True

    def run(self, part: Callable[[Actor], None]) -> None:
        """Play a part until the end; what goes wrong is kept for the test."""
        with closing(self.session):
            try:
                part(self)
            except Exception as error:
                logger.exception("an actor failed")
                self.races.errors.append(f"{part.__name__}: {type(error).__name__}: {error}".strip())
                self.races.over.set()

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement."""
        with self.session.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def step(self, function: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Call a function of the bridge; a lock that is not to be had makes it come to nothing, as in the service."""
        try:
            with self.session.cursor() as cursor:
                cursor.callproc(f"bridge.{function}", parameters)
                return cursor.fetchall()
        except psycopg2.errors.LockNotAvailable:
            self.races.happened["lock timeout"] += 1
            return []

    def answer(self, function: str, *parameters: object) -> dict[str, Any]:
        """Call one of the functions that tell what they did."""
        rows = self.step(function, *parameters)
        answer: dict[str, Any] = rows[0][0] if rows else {"outcome": "lock timeout"}
        self.races.happened[f"{function}: {answer['outcome']}"] += 1
        return answer

    def now_and_then(self, probability: float) -> bool:
        """Whether chance has it; never while the last messages are awaited."""
        return not self.races.calm.is_set() and self.chance.random() < probability

    def pause(self, *seconds: float) -> None:
        """Wait for one of these times."""
        time.sleep(self.chance.choice(seconds))


# The app


def write(actor: Actor) -> None:
    """Write in transactions of one to three messages that commit late, are rolled back, or see an old snapshot."""
    races = actor.races
    while len(races.written) < MESSAGES and not races.over.is_set():
        if actor.chance.random() < 0.1:
            match = str(uuid4())
            actor.rows("INSERT INTO matches (id, user1_id, user2_id) VALUES (%s, %s, %s)", match, LEA, CAMILLE)
            races.matches.append(match)
        # Some conversations are busy, and some have just begun; an old snapshot does not see later ones.
        matches = races.matches[:10] + races.matches[-5:]
        isolation = actor.chance.choice(("READ COMMITTED", "READ COMMITTED", "REPEATABLE READ"))
        actor.rows(f"BEGIN ISOLATION LEVEL {isolation}")
        written = {}
        for _ in range(actor.chance.choice((1, 1, 2, 3))):
            match = actor.chance.choice(matches)
            message = str(uuid4())
            began = time.monotonic()
            actor.rows(WRITE, message, match, LEA, message)
            written[message] = Written(match, began, time.monotonic())
            actor.pause(0, 0, 0.005)
        actor.pause(0, 0, 0.01, 0.03)
        if actor.chance.random() < 0.1:
            actor.rows("ROLLBACK")
            continue
        actor.rows("COMMIT")
        committed = time.monotonic()
        for each in written.values():
            each.committed = committed
        races.written.update(written)
        actor.pause(0, 0.01, 0.03)


# The schedulers


def group(actor: Actor) -> None:
    """Group, mostly above a bound that may be wrong."""
    bound = 0
    while not actor.races.over.is_set():
        after = bound if actor.now_and_then(0.7) else 0
        grouped = actor.step("group_events", after, GROUPING_DELAY, 0.0, INITIATION_MAX, 1.0)
        bound = max([bound, *(event for event, *_ in grouped)]) if actor.now_and_then(0.5) else bound
        named = f"{{{','.join(match for _, _, match, *_ in grouped)}}}"
        for _, _, done, _ in actor.step("overtake", None if actor.chance.random() < 0.3 else named):
            actor.races.happened[f"overtake: {'superseded' if done else 'locked'}"] += 1
        actor.pause(0, 0.002, 0.01)


def push(actor: Actor) -> None:
    """Push what is due; what is enqueued gets lost, doubled and forged on its way."""
    races = actor.races
    while not races.over.is_set():
        if actor.now_and_then(0.02):
            actor.step("reset_pushes")
        for turn, step, *_ in actor.step("push_due", 10, 100, AGAIN, 2 * AGAIN, NEVER):
            races.queue += [(turn, step)] * (0 if actor.now_and_then(0.15) else 2 if actor.now_and_then(0.15) else 1)
            if actor.now_and_then(0.1):
                races.queue.append((actor.chance.randint(1, turn), actor.chance.choice(("compose", "deliver"))))
        actor.pause(0, 0.002, 0.01)


# The workers


def work(actor: Actor) -> None:
    """Take pushes, in any order, until there are no more."""
    races = actor.races
    while not races.over.is_set():
        try:
            turn, step = races.queue.pop(0 if actor.chance.random() < 0.7 else -1)
        except IndexError:
            time.sleep(0.002)
            continue
        if step == "compose":
            compose(actor, turn)
        else:
            deliver(actor, turn)


def compose(actor: Actor, turn: int | None) -> None:
    """Claim, write the ids of the messages, and hand that in: late, twice, or never."""
    while turn is not None:
        token = str(uuid4())
        plain = actor.chance.random() < 0.3
        claim = (turn, token, actor.chance.choice(LEASES), 0, plain)
        task = actor.answer("claim", *claim)
        if actor.now_and_then(0.05) and task["outcome"] == "claimed":
            again = actor.answer("claim", *claim)
            # The same, but for what was taken along where the lease has run out between the two.
            if again["outcome"] == "claimed":
                assert again["messages"][: len(task["messages"])] == task["messages"], "another answer"
                task = again
        if task["outcome"] != "claimed" or actor.now_and_then(0.03):
            return
        actor.pause(0, 0, 0.005, 0.03)
        if actor.now_and_then(0.1):
            actor.step("renew", f"{{{turn}}}", f"{{{token}}}", 1.0)
            actor.pause(0, 0.05)
        if actor.now_and_then(0.05):
            actor.answer("fail", turn, token, "away", 0.05, False, 5)  # noqa: FBT003 - as in SQL
            return
        draft = json.dumps([line["content"] for line in task["messages"]])
        finish = (turn, token, draft, actor.chance.choice((0.0, 0.02)), MAX_MERGES, GROUPING_DELAY, 5)
        answer = ending(actor, turn, "finish", *finish)
        if actor.now_and_then(0.1):
            answer = ending(actor, turn, "finish", *finish)
        if actor.now_and_then(0.1):
            deliver(actor, turn)  # too early
        turn = answer.get("next_turn")


def deliver(actor: Actor, turn: int) -> None:
    """Deliver, and go on with the next turn of the conversation."""
    answer = ending(actor, turn, "deliver_turn", turn, MAX_MERGES, GROUPING_DELAY, 5)
    compose(actor, answer.get("next_turn"))


def ending(actor: Actor, turn: int, function: str, *parameters: object) -> dict[str, Any]:
    """Make a call that may deliver, and note when it began if it did."""
    began = time.monotonic()
    answer = actor.answer(function, *parameters)
    if answer["outcome"] == "answered" and not answer.get("again"):
        actor.races.delivered[turn] = began
    return answer


# What it comes to


@dataclass(frozen=True, slots=True)
class Reply:
    """A bot's message and its turn."""

    turn: int
    kind: str
    match: str
    covers: list[str]
    merges: int


def replies_of(rows: Rows) -> list[Reply]:
    """Return all that bots have said, in order."""
    found = rows(
        "SELECT t.id, t.kind, m.match_id, m.content, t.merges FROM messages m"
        " LEFT JOIN bridge.turns t ON t.reply_message_id = m.id WHERE m.sender_id = %s ORDER BY m.created_at, m.id",
        CAMILLE,
    )
    return [Reply(turn, kind, match, json.loads(content), merges) for turn, kind, match, content, merges in found]


def broken_promises(races: Races, rows: Rows) -> dict[str, list[str]]:
    """Return what is lost, doubled, disordered, stale, forbidden or early."""
    replies = replies_of(rows)
    places: dict[str, list[int]] = defaultdict(list)
    for place, reply in enumerate(replies):
        for message in reply.covers:
            places[message].append(place)
    lost = [message for message in races.written if message not in places]
    doubled = [message for message, where in places.items() if len(where) > 1]
    if lost or doubled:
        return {"lost": lost, "doubled": doubled}

    answered = {message: place for message, [place] in places.items()}
    conversations: dict[str, list[str]] = defaultdict(list)
    for message, each in races.written.items():
        conversations[each.match].append(message)
    return {
        "disordered": [
            f"{later} before {earlier}"
            for conversation in conversations.values()
            for later in conversation
            for earlier in conversation
            if races.written[earlier].committed < races.written[later].began and answered[earlier] > answered[later]
        ],
        "stale": [
            f"turn {reply.turn} ignores {message}"
            for place, reply in enumerate(replies)
            if reply.kind == "reply" and reply.merges < MAX_MERGES
            for message in conversations[reply.match]
            if races.written[message].committed < races.delivered[reply.turn] and answered[message] > place
        ],
        "forbidden": [
            f"turn {reply.turn} after {message}"
            for reply in replies
            if reply.kind == "initiation"
            for message in conversations[reply.match]
            if races.written[message].returned < races.delivered[reply.turn]
        ],
        "early": [
            f"turn {turn}"
            for (turn,) in rows(
                "SELECT id FROM bridge.turns WHERE answered_at < deliver_at"
                " OR (kind = 'reply' AND queued_at < opened_at + make_interval(secs => %s))",
                GROUPING_DELAY,
            )
        ],
        "more than one opener": [
            match
            for match, count in Counter(reply.match for reply in replies if reply.kind == "initiation").items()
            if count > 1
        ],
    }


@pytest.mark.slow
@pytest.mark.timeout(60 + MESSAGES // 20)
def test_nothing_is_lost_doubled_disordered_stale_or_forbidden(bridge_database: Urls) -> None:
    """Whatever sessions do at the same time, every message is answered once, in order, by a reply that knows it."""
    races = Races(bridge_database)
    set_policy(bridge_database, max_merges=MAX_MERGES, grouping_delay=GROUPING_DELAY, grouping_max=4 * GROUPING_DELAY)
    observer = Actor(races, SEED, ADMIN)
    for _ in range(10):
        match = str(uuid4())
        observer.rows("INSERT INTO matches (id, user1_id, user2_id) VALUES (%s, %s, %s)", match, LEA, CAMILLE)
        races.matches.append(match)
    parts = [(write, APP)] * WRITERS + [(group, SERVICE), (push, SERVICE)] * SCHEDULERS + [(work, SERVICE)] * WORKERS
    threads = [
        threading.Thread(target=Actor(races, SEED + number, role).run, args=(part,), name=part.__name__, daemon=True)
        for number, (part, role) in enumerate(parts, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads[:WRITERS]:
        thread.join()
    races.calm.set()

    def at_rest() -> bool:
        unfinished = "SELECT (SELECT count(*) FROM bridge.events WHERE turn_id IS NULL) + count(*) FROM bridge.turns"
        return races.over.is_set() or observer.rows(f"{unfinished} WHERE ended_at IS NULL") == [(0,)]

    with closing(observer.session):
        try:
            eventually(at_rest, timeout=30)
        finally:
            races.over.set()
            for thread in threads:
                thread.join()
        assert races.errors == []
        found = broken_promises(races, observer.rows)
        outcomes = observer.rows(
            "SELECT state || coalesce(' ' || reason, '') FROM bridge.turns WHERE kind = 'initiation'"
        )

    happened = races.happened
    happened.update(f"opener: {outcome}" for (outcome,) in outcomes)
    logger.info("%d messages: %s", len(races.written), dict(sorted(happened.items())))
    assert not any(found.values()), found
    # Nothing is proven by races that never met.
    for outcome in (
        "claim: busy",
        "claim: nothing",
        "finish: fenced",
        "finish: superseded",
        "deliver_turn: superseded",
        "overtake: superseded",
        "opener: answered",
        "opener: cancelled message",
    ):
        assert happened[outcome], happened
