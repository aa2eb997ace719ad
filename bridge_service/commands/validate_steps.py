"""The steps of `validate`: what is written, what has to follow, how long that may take, and what it means if it does not.

A step waits as long as something goes on. What stands still for longer than its stage may take is a fault, told with the
likeliest cause.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from bridge_service.commands.validate_app import Guests
from bridge_service.errors import BridgeError
from bridge_service.ledger import Ledger
from bridge_service.output import counted
from bridge_service.pacing import MAXIMUM_TYPING_SECONDS
from bridge_service.settings import Settings

MESSAGES: Final = 10
RAPID: Final = 3
LOAD: Final = 50
PEOPLE: Final = MESSAGES + 1
"""One conversation for each of the ten messages, and a new one for the bot's first word."""

OPENER_SECONDS: Final = 2.0
POLL_SECONDS: Final = 0.05

GROUPED_SECONDS: Final = 15.0
"""Without notifications (a pooler in transaction mode) the schedulers look every few seconds."""

PUSHED_SECONDS: Final = 15.0
CLAIMED_SECONDS: Final = 30.0
ANSWERED_SECONDS: Final = 60.0
"""How long each stage may stand still, beside the delays that are set."""

_EARLY_SECONDS: Final = 0.001


class Stage(IntEnum):
    """How far a message or a match has come."""

    WRITTEN = 0
    CAPTURED = 1
    GROUPED = 2
    PUSHED = 3
    CLAIMED = 4
    ANSWERED = 5


class Interrupted(Exception):
    """Raised when the operator wants it to end."""


class Stuck(Exception):
    """Raised when something stands still or went wrong: its text says what, in one line. Later steps would tell no more."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a step came to.

    Attributes:
      detail: in a few words.
      faults: what does not hold, a line each.
      detection: seconds from each capture to its group.
      push: seconds from each turn's planned time to its push.
    """

    detail: str
    faults: tuple[str, ...]
    detection: tuple[float, ...]
    push: tuple[float, ...]


Step = Callable[[Callable[[int], None]], Result]
"""Takes what is told how many messages are answered by now."""


@dataclass(frozen=True, slots=True)
class Look:
    """Where things stand: the events by message or match, and their turns by id; see sql/functions/follow.sql."""

    now: float
    events: dict[str, dict[str, Any]]
    turns: dict[int, dict[str, Any]]

    def turn(self, followed: str) -> dict[str, Any] | None:
        """Return the turn of a message or a match's opener."""
        event = self.events.get(followed)
        return None if event is None else self.turns.get(event["turn_id"])

    def stage(self, followed: str) -> Stage:
        """Return how far it has come."""
        if followed not in self.events:
            return Stage.WRITTEN
        turn = self.turn(followed)
        if turn is None:
            return Stage.CAPTURED
        if turn["state"] == "answered":
            return Stage.ANSWERED
        if turn["state"] in {"composing", "typing"}:
            return Stage.CLAIMED
        return Stage.GROUPED if turn["state"] == "open" else Stage.PUSHED


class Validation:
    """Goes through the steps, in order; each raises `Stuck`, `Interrupted` or a BridgeError if it has no result.

    Parameters:
      settings: of the command's environment, which has to be the processes'.
      stopping: set when the operator wants it to end.
    """

    def __init__(self, ledger: Ledger, guests: Guests, settings: Settings, stopping: threading.Event) -> None:
        self._ledger = ledger
        self._guests = guests
        self._delay = settings.grouping_delay
        typing = MAXIMUM_TYPING_SECONDS if settings.typing_speed_cps else 0.0
        self._reply_seconds = settings.thinking_delay_max + typing
        self._stopping = stopping
        self._written: list[str] = []

    def steps(self) -> tuple[tuple[str, int, Step], ...]:
        """Return the steps: name, how many answers are expected, and what to call."""
        return (
            ("messages", MESSAGES, self._messages),
            ("grouping", RAPID, self._grouping),
            ("initiation", 1, self._initiation),
            ("load", LOAD, self._load),
        )

    # The steps

    def _messages(self, progress: Callable[[int], None]) -> Result:
        sent = [self._note(self._guests.match_and_write()) for _ in range(MESSAGES)]
        return self._follow(sent, progress)

    def _grouping(self, progress: Callable[[int], None]) -> Result:
        match = self._guests.matches[0]
        sent = [self._note(self._guests.write(match)) for _ in range(RAPID)]
        return self._follow(sent, progress, group=True)

    def _load(self, progress: Callable[[int], None]) -> Result:
        matches = self._guests.matches[:MESSAGES]
        sent = [self._note(self._guests.write(matches[number % len(matches)])) for number in range(LOAD)]
        return self._follow(sent, progress)

    def _initiation(self, progress: Callable[[int], None]) -> Result:
        match = self._guests.match()
        self._wait([match], Stage.GROUPED)
        plan = self._ledger.plan_opener(match, OPENER_SECONDS)
        # One that was drawn and due already is under way, which is as good.
        if plan["outcome"] not in {"planned", "nothing"}:
            raise Stuck(f"the opener of a new match could not be planned ({plan['outcome']})")
        look = self._wait([match], Stage.ANSWERED, progress)
        turn = look.turn(match) or {}
        faults = self._unexpected([match], {match: {turn["reply_message_id"]}})
        push = ()
        if plan["outcome"] == "planned":
            planned = look.events[match]["planned_at"] if "planned_at" in look.events[match] else None
            del planned
        return Result("said first", tuple(faults), _detection(look), push)

    # What they share

    def _note(self, message: str) -> str:
        if self._stopping.is_set():
            raise Interrupted
        self._written.append(message)
        return message

    def _follow(self, sent: Sequence[str], progress: Callable[[int], None], *, group: bool = False) -> Result:
        raise NotImplementedError

    def _wait(self, followed: Sequence[str], stage: Stage, progress: Callable[[int], None] = lambda _: None) -> Look:
        raise NotImplementedError
