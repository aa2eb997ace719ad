"""Rules P0 to P3 under load: replies of three messages, and newer messages at random moments."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

from bridge_service.errors import DatabaseBusy
from tests.support.rules import CAMILLE, LEA, WRITE, Bridge, without
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge_service.machine.steps import Store

CONVERSATIONS: Final = 40
PAUSE_SECONDS: Final = 0.06
PARTS: Final = 3


class Told(NamedTuple):
    """What the claim of a later turn was told: its covered texts, and those of the interrupted reply."""

    covers: tuple[str, ...]
    said: tuple[str, ...]
    withheld: tuple[str, ...]


class Race:
    """People write twice, each at a random moment; two schedulers group, overtake and deliver; a worker composes."""

    def __init__(self, bridge: Bridge, conversations: int) -> None:
        self.matches = [bridge.match() for _ in range(conversations)]
        self.told: defaultdict[str, list[Told]] = defaultdict(list)
        self.parts: dict[int, tuple[str, ...]] = {}
        self.began: dict[str, float] = {}  # by text: when the call that said it began
        self.committed: dict[str, float] = {}  # by text of a person
        self.errors: list[BaseException] = []
        self._bridge = bridge
        self._over = threading.Event()
        self._pushed: SimpleQueue[int] = SimpleQueue()

    def run(self) -> None:
        """Return once every message is answered."""
        loops = [self._write, self._schedule, self._schedule, self._work]
        threads = [threading.Thread(target=self._guarded, args=(loop, self._bridge.another_store())) for loop in loops]
        for thread in threads:
            thread.start()
        try:
            eventually(self._check_over, timeout=120)
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
        assert self.errors == []

    def _check_over(self) -> bool:
        unfinished = "SELECT count(*) FROM bridge.turns WHERE ended_at IS NULL"
        ungrouped = "SELECT count(*) FROM bridge.events WHERE turn_id IS NULL"
        written = len(self.committed) == 2 * len(self.matches)
        return bool(self.errors) or (written and not self._bridge.value(f"SELECT ({unfinished}) + ({ungrouped})"))

    def _guarded(self, loop: Callable[[Store], None], store: Store) -> None:
        try:
            loop(store)
        except BaseException as error:  # noqa: BLE001 - the test's thread raises it
            self.errors.append(error)

    def _write(self, _: Store) -> None:
        rng = random.Random(7)  # noqa: S311
        people = self._bridge.connect()
        due = [(index * 0.02 + rng.random() * 0.01, match, "a") for index, match in enumerate(self.matches)]
        due += [(at + rng.random() * PAUSE_SECONDS * 6, match, "b") for at, match, _ in due]
        begin = time.monotonic()
        for at, match, text in sorted(due):
            self._over.wait(max(0.0, begin + at - time.monotonic()))
            self._bridge.rows(WRITE, str(uuid4()), match, LEA, f"{text} {match}", connection=people)
            self.committed[f"{text} {match}"] = time.monotonic()

    def _schedule(self, store: Store) -> None:
        rng = random.Random()  # noqa: S311
        while not self._over.is_set():
            with suppress(DatabaseBusy):
                store.group()
                if rng.random() < 0.5:
                    store.overtake()
                for push in store.push_due(1000):
                    self._pushed.put(push.turn_id)
                self._deliver(store)
            self._over.wait(0.002)

    def _deliver(self, store: Store) -> None:
        began = time.monotonic()
        done = store.deliver_due(16, [])
        for turn, outcome in done.outcomes.items():
            if outcome.name == "alone":
                began = time.monotonic()
                outcome = store.deliver(turn)  # noqa: PLW2901
            if outcome.name in {"part", "answered"} and not outcome.details.get("again"):
                number = outcome.details.get("part", len(self.parts[turn]))
                self.began[self.parts[turn][number - 1]] = began

    def _work(self, store: Store) -> None:
        while not self._over.is_set():
            with suppress(DatabaseBusy, Empty):
                self._compose(store, self._pushed.get(timeout=0.05))

    def _compose(self, store: Store, turn: int) -> None:
        token = uuid4()
        task = store.claim(turn, token, plain=False).task
        if task is None:
            return
        self.told[task.match_id].append(Told(tuple(m.content for m in task.messages), task.said, task.withheld))
        self.parts[turn] = tuple(f"{turn}.{number} {task.match_id}" for number in range(1, PARTS + 1))
        rest = [(text, PAUSE_SECONDS) for text in self.parts[turn][1:]]
        store.finish(turn, token, self.parts[turn][0], pause=PAUSE_SECONDS, rest=rest)


def faults(bridge: Bridge, race: Race) -> dict[str, int]:
    """Count what breaks a promise, in the app's table and in what the responder was told."""
    found: dict[str, int] = dict.fromkeys(("lost", "doubled", "disordered", "stale", "withheld"), 0)
    counts = bridge.value("SELECT bridge.verify(30, 10)")
    found["lost"] = counts["unaccounted"] + counts["dead"] + counts["cancelled"] + counts["open"]
    found["doubled"] = counts["doubled"]
    spoken: defaultdict[str, list[str]] = defaultdict(list)
    rows = "SELECT match_id, content FROM messages WHERE sender_id = %s ORDER BY match_id, created_at"
    for match, text in bridge.rows(rows, CAMILLE):
        spoken[match].append(text)
    events = "SELECT e.turn_id, m.content FROM bridge.events e JOIN messages m ON m.id = e.message_id"
    covers: defaultdict[int, set[str]] = defaultdict(set)
    for turn, text in bridge.rows(events):
        covers[turn].add(text)
    for match in race.matches:
        found["doubled"] += len(spoken[match]) - len(set(spoken[match]))
        turns = sorted({int(text.partition(".")[0]) for text in spoken[match]})
        whole = [race.parts[turn] for turn in turns]
        prefixes = [[text for text in spoken[match] if text in parts] for parts in whole]
        found["disordered"] += [text for prefix in prefixes for text in prefix] != spoken[match]
        found["disordered"] += sum(
            [*parts[: len(prefix)]] != prefix for parts, prefix in zip(whole, prefixes, strict=True)
        )
        interrupted = [
            ((*prefix,), parts[len(prefix) :])
            for parts, prefix in zip(whole, prefixes, strict=True)
            if len(prefix) < PARTS
        ]
        told = [(each.said, each.withheld) for each in race.told[match] if each.said or each.withheld]
        found["withheld"] += [*dict.fromkeys(told)] != interrupted
        for turn in turns:
            known = set().union(*(covers[other] for other in turns if other <= turn))
            newer = [race.committed[text] for text in (f"a {match}", f"b {match}") if text not in known]
            spoken_here = [text for text in spoken[match] if text in race.parts[turn]]
            found["stale"] += sum(any(at < race.began[text] for at in newer) for text in spoken_here)
    return found


def run_race(bridge: Bridge, conversations: int) -> tuple[dict[str, int], int]:
    """Race so many conversations: the faults, and how many replies were interrupted."""
    with bridge.policy(grouping_delay=0, reply_parts=PARTS):
        race = Race(bridge, conversations)
        race.run()
    interrupted = bridge.value("SELECT count(*) FROM bridge.turns WHERE state = 'answered' AND reason = 'interrupted'")
    return faults(bridge, race), interrupted


@without(("supersede", "v_said := bridge.end_said(p_turn, 'interrupted');", ""))
def test_P2_messages_at_random_moments_lose_and_double_nothing(bridge: Bridge) -> None:
    """Nothing is lost, doubled or out of order, nothing is said past a newer message, and what is withheld is told."""
    found, interrupted = run_race(bridge, CONVERSATIONS)
    assert set(found.values()) == {0}, found
    assert interrupted, "no message came between two parts"
