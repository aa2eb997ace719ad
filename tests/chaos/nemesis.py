"""Plans faults, a pure matter of the seed, and plays the plan."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.chaos.faults import KINDS, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.faults import Fault
    from tests.chaos.stage import Stage

WARM_UP_SECONDS: Final = 3.0
LONG_SECONDS: Final = 9.5
"""Longer faults are played beside others, or a run would mostly wait for them."""

HEAL_ATTEMPTS: Final = 10


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault to come: `at` and `seconds` in seconds, `seed` for what chance decides in it."""

    kind: str
    at: float
    seconds: float
    seed: int

    @property
    def end(self) -> float:
        """When it is to be healed."""
        return self.at + self.seconds


@dataclass(slots=True)
class Band:
    """A fault that was played; times as of time.time(). `error`: what went wrong with playing it."""

    kind: str
    target: Target
    began: float
    healed: float | None = None
    freezes_postgres: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How a plan goes.

    Attributes:
      at_once: how many faults may begin together.
      pause: seconds from and to between two episodes.
      lasting: seconds that every fault lasts, instead of what its kind says.
    """

    at_once: int = 3
    pause: tuple[float, float] = (1.5, 4.0)
    lasting: float | None = None


def plan(rng: random.Random, kinds: Sequence[str], seconds: float | None, rhythm: Rhythm) -> list[Planned]:
    """Plan faults in episodes of one to `at_once`, every kind once before any of them comes again.

    Parameters:
      seconds: until when; None: until every kind had its turn.
    """
    planned: list[Planned] = []
    busy: dict[Target, float] = {}
    left: list[str] = []
    at = WARM_UP_SECONDS
    rounds = 0
    while kinds and (left or rounds == 0 or seconds is not None) and (seconds is None or at < seconds):
        if not left:
            left = rng.sample(list(kinds), len(kinds))
            rounds += 1
        count = rng.randint(1, rhythm.at_once)
        end = at
        for _ in range(count):
            kind = next((each for each in left if busy.get(KINDS[each].target, 0.0) <= at), None)
            if kind is None:
                break
            left.remove(kind)
            begin = at + rng.uniform(0.0, 1.0)
            lasts = rng.uniform(*KINDS[kind].seconds) if rhythm.lasting is None else rhythm.lasting
            fault = Planned(kind, begin, lasts, rng.getrandbits(32))
            planned.append(fault)
            # A moment to be healed in, and for processes to come back.
            busy[KINDS[kind].target] = fault.end + 1.5
            if fault.seconds <= LONG_SECONDS or rhythm.at_once == 1:
                end = max(end, fault.end)
        if end == at:  # everything that is left has to wait for something long
            at = min(until for until in busy.values() if until > at) if any(u > at for u in busy.values()) else at
            at += 0.1
        else:
            at = end + rng.uniform(*rhythm.pause)
    return [fault for fault in planned if seconds is None or fault.end <= seconds]


@dataclass
class Nemesis:
    """Plays a plan on a stage, each fault in a thread of its own."""

    stage: Stage
    planned: Sequence[Planned]
    bands: list[Band] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _started_at: float = 0.0
    _stopping: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begin."""
        self._started_at = time.monotonic()
        for fault in self.planned:
            thread = threading.Thread(target=self._play, args=(fault,), name=fault.kind, daemon=True)
            self._threads.append(thread)
            thread.start()

    def join(self) -> None:
        """Return once every fault was healed."""
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        """Leave what has not begun, heal what has, and return."""
        self._stopping.set()
        self.join()

    @property
    def active(self) -> list[str]:
        """Names of the faults that are being played."""
        return [band.kind for band in self.bands if band.healed is None]

    def _play(self, planned: Planned) -> None:
        if self._stopping.wait(max(0.0, self._started_at + planned.at - time.monotonic())):
            return
        kind = KINDS[planned.kind]
        band = Band(planned.kind, kind.target, time.time(), freezes_postgres=kind.freezes_postgres)
        self.bands.append(band)
        fault = kind(self.stage, random.Random(planned.seed))  # noqa: S311 - chance, not secrets
        try:
            fault.inject()
            self._hold(fault, self._started_at + planned.end)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is healed and reported
            band.error = f"not played: {type(error).__name__}: {error}"
        for attempt in range(1, HEAL_ATTEMPTS + 1):
            try:
                fault.heal()
                break
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                if attempt == HEAL_ATTEMPTS:
                    band.error = f"not healed: {type(error).__name__}: {error}"
                time.sleep(0.5)
        band.healed = time.time()

    def _hold(self, fault: Fault, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            if self._stopping.wait(left if fault.every is None else min(left, fault.every)):
                return
            if fault.every is not None and time.monotonic() < until:
                fault.again()
