"""One run, from the empty servers to the verdict."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import psycopg2

from tests.chaos.crowd import Crowd
from tests.chaos.faults import kinds_for
from tests.chaos.indicator import Watch
from tests.chaos.nemesis import Band, Nemesis, Planned, Rhythm, plan
from tests.chaos.recovery import Recovery, frozen, longest_wait_in_calm, recoveries
from tests.chaos.script import Habits, write_script
from tests.chaos.stage import COMMANDS, DISCLOSURE, TAKEOVER_PAUSE, Stage
from tests.support.ledger import Ledger, Message, Terms, check
from tests.support.roles import SERVICE
from tests.support.tact import Tact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.chaos.crew import Command, Exit
    from tests.chaos.script import Act
    from tests.support.rules import Taken

READY_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.5
AFTERMATH_SECONDS: Final = 2.0
"""Once everything is answered, so long is waited for an answer too many."""


@dataclass(frozen=True, slots=True)
class Plot:
    """What a run does; everything that chance decides comes from `seed`.

    Attributes:
      messages: how many people write; None: as many as `rate` makes of the time that the faults take.
      rate: messages a second.
      faults: kinds, by name.
      planned: the faults themselves, instead of kinds.
      rhythm: how the faults follow each other.
      habits: what people do.
      calm: seconds for which people go on writing after the last fault, to see whether all is well again.
      settle: seconds to wait, once all is healed, until everything is answered.
      thinking: THINKING_DELAY_MIN and _MAX; typing takes no time.
      max_merges: MAX_MERGES.
      taken: what to take out of the bridge on purpose, as tests/support/rules.py has it.
      commands: what starts the processes.
      responder: one of tests.chaos.stage.RESPONDERS.
    """

    seed: int
    messages: int | None = None
    rate: float = 15.0
    faults: tuple[str, ...] = kinds_for(model=False)
    planned: tuple[Planned, ...] | None = None
    rhythm: Rhythm = field(default_factory=Rhythm)
    habits: Habits = field(default_factory=Habits)
    calm: float = 8.0
    settle: float = 60.0
    thinking: tuple[float, float] = (0.0, 0.3)
    max_merges: int = 3
    taken: tuple[Taken, ...] = ()
    commands: Mapping[str, Command] = field(default_factory=lambda: COMMANDS)
    responder: str = "plain"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
      calm: the most seconds for which an answer was overdue while no fault was there, and the fault before.
      unhealed: faults that could not be played or healed: the run proves less than it should.
      hurt: errors that the app met and never should, by SQLSTATE.
      codes: exit codes of the processes at the final SIGTERM; None: it did not end in time.
      threads: of each role's processes, at the beginning and at the end.
      loud: (most lines a second of one process, the line), where that is more than it should be.
      asked: requests that the model has seen.
      unpaid: those of them that were not reserved before (M1).
      lit: indicators that were on too long, in words.
      lamps: how often an indicator was seen on.
      unverified: what `verify` said and should not have said.
      deeds: how many of each kind came to pass: humans, edits, deletions.
      alarming: lines that tell of a mistake in the program, with their numbers.
    """

    ledger: Ledger
    bands: tuple[Band, ...]
    recoveries: tuple[Recovery, ...]
    calm: tuple[float, str]
    exits: tuple[Exit, ...]
    began: float
    ended: float
    unhealed: tuple[str, ...]
    hurt: Mapping[str, int]
    codes: Mapping[str, int | None]
    threads: tuple[Mapping[str, Sequence[int]], Mapping[str, Sequence[int]]]
    loud: tuple[tuple[int, str], ...]
    alarming: Mapping[str, int]
    asked: int
    unpaid: int
    lit: tuple[str, ...] = ()
    lamps: int = 0
    unverified: tuple[str, ...] = ()
    deeds: Mapping[str, int] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every promise was kept."""
        return not (
            self.ledger.faults or self.unhealed or self.hurt or self.unpaid or self.lit or self.unverified
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands."""

    phase: str
    seconds: float
    of_seconds: float
    sent: int
    answered: int
    active: Sequence[str]


def play(plot: Plot, logs: Path, tell: Callable[[Progress], None] = lambda _: None) -> Outcome:
    """Play a run.

    Parameters:
      logs: a folder for the processes' lines.
      tell: told of the progress, about twice a second.
    """
    rng = random.Random(plot.seed)  # noqa: S311 - chance, not secrets
    seconds = None if plot.messages is None else plot.messages / plot.rate
    faults = plot.planned
    if faults is None:
        until = None if seconds is None else seconds - plot.calm
        faults = tuple(plan(rng, plot.faults, until, plot.rhythm))
    if seconds is None:
        seconds = max((fault.end for fault in faults), default=0.0) + plot.calm
    messages = round(seconds * plot.rate) if plot.messages is None else plot.messages
    script = write_script(rng, messages, seconds, plot.habits)
    tell(Progress("starting", 0, seconds, 0, 0, ()))
    with Stage(_settings(plot), plot.responder, plot.taken, plot.commands, logs, tactful=plot.habits.tactful) as stage:
        return _Run(plot, stage, script, Nemesis(stage, faults), seconds, tell=tell).play()


def _settings(plot: Plot) -> dict[str, str]:
    soon, late = plot.habits.opener
    return {
        "GROUPING_DELAY": f"{plot.habits.delay:g}",
        "TEST_MODE": "true",
        "INITIATION_DELAY_MIN": f"{soon:g}",
        "INITIATION_DELAY_MAX": f"{late:g}",
        "THINKING_DELAY_MIN": f"{plot.thinking[0]:g}",
        "THINKING_DELAY_MAX": f"{plot.thinking[1]:g}",
        "TYPING_SPEED_CPS": "0",
        "MAX_MERGES": str(plot.max_merges),
    }


class _Run:
    def __init__(
        self,
        plot: Plot,
        stage: Stage,
        script: Sequence[Act],
        nemesis: Nemesis,
        seconds: float,
        *,
        tell: Callable[[Progress], None],
    ) -> None:
        self._plot = plot
        self._stage = stage
        self._crowd = Crowd(stage.app_url, script)
        self._nemesis = nemesis
        self._seconds = seconds
        self._tell = tell
        self._answered = 0
        self._watcher = Watch(stage, nemesis.bands, self._crowd.held)

    def play(self) -> Outcome:
        stage, crowd, nemesis = self._stage, self._crowd, self._nemesis
        stage.crew.start()
        try:
            self._until_ready()
            before = stage.crew.threads()
            began = time.time()
            crowd.start()
            nemesis.start()
            if self._plot.habits.tactful:
                self._watcher.start()
            self._watch("running", began, lambda: crowd.busy)
            nemesis.join()
            stage.crew.bury()
            self._watch("settling", began, self._unsettled(time.monotonic() + self._plot.settle))
            time.sleep(AFTERMATH_SECONDS)
            after = stage.crew.threads()
        finally:
            crowd.stop()
            nemesis.stop()
            if self._plot.habits.tactful:
                self._watcher.stop()
            codes = stage.crew.stop()
        ledger = self._judge()
        assert ledger is not None, "PostgreSQL is not there at the end"
        noise = stage.crew.noise
        return Outcome(
            ledger=ledger,
            bands=tuple(nemesis.bands),
            recoveries=tuple(recoveries(nemesis.bands, ledger.waited)),
            calm=longest_wait_in_calm(nemesis.bands, ledger.waited),
            exits=tuple(stage.crew.exits),
            began=began,
            ended=time.time(),
            unhealed=tuple(f"{band.kind}: {band.error}" for band in nemesis.bands if band.error),
            hurt=dict(crowd.hurt),
            codes=codes,
            threads=(before, after),
            loud=tuple(noise.worst()),
            alarming=dict(noise.alarming),
            asked=stage.asked,
            unpaid=max(0, stage.asked - self._paid()),
            lit=tuple(self._watcher.lamps.findings),
            lamps=self._watcher.lamps.seen,
            unverified=tuple(self._verify()) if self._plot.habits.tactful else (),
            deeds={
                "humans": len(crowd.humans),
                "edits": sum(change.content is not None for change in crowd.changes),
                "deletions": sum(change.content is None for change in crowd.changes),
            },
        )

    def _verify(self) -> Iterator[str]:
        """Give what `verify` says against the run; it has to miss a disclosure that is deleted then."""
        code, words = self._stage.verify()
        if code != 0:
            yield f"verify: {words}"
        with self._stage.admin() as connection, connection.cursor() as cursor:
            cursor.execute(
                "DELETE FROM messages WHERE id = (SELECT d.message_id FROM bridge.disclosures d"
                " ORDER BY d.said_at DESC LIMIT 1)"
            )
            deleted = cursor.rowcount
        code, words = self._stage.verify()
        if deleted != 1 or code != 1:
            yield f"verify exits with {code} after {deleted} disclosures were deleted: {words}"

    def _until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            with self._stage.admin() as connection, connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(*) FILTER (WHERE application_name LIKE '%%listener%%'),"
                    " count(*) FILTER (WHERE application_name LIKE '%%worker%%')"
                    " FROM pg_stat_activity WHERE usename = %s",
                    (SERVICE,),
                )
                [(listeners, workers)] = cursor.fetchall()
            if listeners >= 1 and workers >= 2:
                time.sleep(1)
                return
            time.sleep(0.1)

    def _watch(self, phase: str, began: float, goes_on: Callable[[], bool]) -> None:
        while goes_on():
            sent, seconds = len(self._crowd.sent), time.time() - began
            self._tell(Progress(phase, seconds, self._seconds, sent, self._answered, self._nemesis.active))
            time.sleep(LOOK_SECONDS)

    def _unsettled(self, deadline: float) -> Callable[[], bool]:
        def unsettled() -> bool:
            ledger = self._judge()
            if ledger is not None:
                self._answered = ledger.sent - ledger.lost
            return (ledger is None or ledger.lost > 0) and time.monotonic() < deadline

        return unsettled

    def _paid(self) -> int:
        with self._stage.admin() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM bridge.calls")
            [[paid]] = cursor.fetchall()
        return int(paid)

    def _judge(self) -> Ledger | None:
        """Judge what stands in the table now; None if PostgreSQL is not there."""
        try:
            with self._stage.admin() as connection, connection.cursor() as cursor:
                cursor.execute(
                    "SELECT id::text, match_id::text, content, created_at, pg_xact_commit_timestamp(xmin) FROM messages"
                )
                rows = [Message(*row) for row in cursor.fetchall()]
        except psycopg2.Error:
            return None
        crowd, habits = self._crowd, self._plot.habits
        met = crowd.met[:]
        return check(
            rows,
            crowd.sent[:],
            Terms(self._plot.habits.delay, self._plot.thinking[1], self._plot.max_merges, frozen(self._nemesis.bands)),
            owed={match.match_id for match in met},
            people={match.match_id for match in met if match.two_people},
            tact=Tact(
                crowd.humans[:],
                crowd.changes[:],
                TAKEOVER_PAUSE,
                DISCLOSURE,
                frozenset(match.match_id for match in met if habits.are_tactful(match)),
            ),
        )
