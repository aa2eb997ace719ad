"""The steps of `validate`: what is written, what has to follow, how long that may take, and what it means if it fails.

A step waits as long as something goes on. What stands still for longer than its stage may take is a fault, told with
the likeliest cause.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from bridge_service.machine.ledger import Ledger
from bridge_service.operate.commands.validate_app import Guests
from bridge_service.operate.output import counted
from bridge_service.worker.pacing import MAXIMUM_TYPING_SECONDS

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

RAPID_MARGIN_SECONDS: Final = 0.05
EARLY_SECONDS: Final = 0.001
LATE_SECONDS: Final = 5.0
"""From here on a push is not slow, but planned with another delay."""


class Stage(IntEnum):
    """How far a message or a match has come."""

    WRITTEN = 0
    CAPTURED = 1
    GROUPED = 2
    PUSHED = 3
    CLAIMED = 4
    ANSWERED = 5


_REMEDIES: Final = {
    Stage.WRITTEN: "written and not captured: are the triggers there? run `python -m bridge_service check`",
    Stage.CAPTURED: "captured, and nobody groups: is `python -m schedulers` running?",
    Stage.GROUPED: "grouped, and not pushed: is `python -m schedulers` running, and does Redis answer it? run `status`",
    Stage.PUSHED: "pushed, and nobody answers: is a worker (`dramatiq bridge_service`) running?",
    Stage.CLAIMED: "taken by a worker, and not answered: is it still running, and does the responder return?",
}


class Interrupted(Exception):
    """Raised when the operator wants it to end."""


class Stuck(Exception):
    """Raised when something stands still or failed: its text says what, in one line. Later steps would tell no more."""


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


Progress = Callable[[int], None]
"""Is told how many are answered by now."""

Step = Callable[[Progress], Result]


@dataclass(frozen=True, slots=True)
class Look:
    """Where things stand: the events by message or match, and their turns by id; see sql/operate/follow.sql."""

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
      stopping: set when the operator wants it to end.
    """

    def __init__(self, ledger: Ledger, guests: Guests, stopping: threading.Event) -> None:
        self._ledger = ledger
        self._guests = guests
        policy = ledger.policy()  # the guests' bot has no row of its own
        self._delay = policy["grouping_delay"]
        typing = MAXIMUM_TYPING_SECONDS if policy["typing_speed_cps"] else 0.0
        self._answer_seconds = ANSWERED_SECONDS + policy["thinking_delay_max"] + typing
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

    def _messages(self, progress: Progress) -> Result:
        sent = [self._note(self._guests.match_and_write()) for _ in range(MESSAGES)]
        return self._judge(sent, self._wait(sent, Stage.ANSWERED, progress))

    def _grouping(self, progress: Progress) -> Result:
        match = self._guests.matches[0]
        sent = [self._note(self._guests.write(match)) for _ in range(RAPID)]
        look = self._wait(sent, Stage.ANSWERED, progress)
        captured = [event["captured_at"] for event in look.events.values()]
        faults = []
        if len(look.turns) > 1 and max(captured) - min(captured) < self._delay - RAPID_MARGIN_SECONDS:
            faults.append(f"{RAPID} rapid messages became {len(look.turns)} groups")
        return self._judge(sent, look, *faults)

    def _initiation(self, progress: Progress) -> Result:
        match = self._guests.match()
        self._wait([match], Stage.GROUPED)
        plan = self._ledger.plan_opener(match, OPENER_SECONDS)
        # `nothing`: one that was drawn, and due at once, is under way, which is as good.
        if plan["outcome"] not in {"planned", "nothing"}:
            raise Stuck(f"the first word of a new match could not be planned: {plan['outcome']}")
        look = self._wait([match], Stage.ANSWERED, progress)
        [turn] = look.turns.values()
        late = [turn["queued_at"] - plan["due_at"]] if "due_at" in plan else []
        faults = [f"the first word came {-each:.2f} s too early" for each in late if each < -EARLY_SECONDS]
        faults += self._unexpected({match: {turn["reply_message_id"]}}, "first words")
        return Result("the bot spoke first, once", tuple(faults), _detection(look), tuple(late))

    def _load(self, progress: Progress) -> Result:
        matches = self._guests.matches[:MESSAGES]
        sent = [self._note(self._guests.write(matches[number % len(matches)])) for number in range(LOAD)]
        return self._judge(sent, self._wait(sent, Stage.ANSWERED, progress))

    # What they share

    def _note(self, message: str) -> str:
        if self._stopping.is_set():
            raise Interrupted
        self._written.append(message)
        return message

    def _judge(self, sent: Sequence[str], look: Look, *faults: str) -> Result:
        """Say what became of messages that are all answered."""
        late = {number: turn["queued_at"] - turn["planned_at"] for number, turn in look.turns.items()}
        found = list(faults)
        if min(late.values()) < -EARLY_SECONDS:
            waited = min(late.values()) + self._delay
            found.append(f"a group was pushed {waited:.2f} s after its first message")
        if max(late.values()) > LATE_SECONDS:
            found.append(f"a group was pushed {max(late.values()):.1f} s late")
        replies: defaultdict[str, set[str]] = defaultdict(set)
        for turn in self._look(self._written).turns.values():
            replies[turn["match_id"]].add(turn["reply_message_id"])
        found += self._unexpected(replies, "replies")
        groups = counted(len(look.turns), "group")
        detail = f"{len(sent)} of {len(sent)} answered, in {groups}"
        return Result(detail, tuple(found), _detection(look), tuple(late.values()))

    def _unexpected(self, expected: Mapping[str, set[str]], what: str) -> Iterator[str]:
        """Compare what the bridge believes to have said with what stands in the app's table."""
        said = self._guests.said(list(expected))
        extra = sum(len(said[match] - replies) for match, replies in expected.items())
        missing = sum(len(replies - said[match]) for match, replies in expected.items())
        if extra:
            yield f"{extra} {what} too many: something was answered twice, or another program answers, too"
        if missing:
            yield f"{missing} {what} are said to be delivered, and are not in table messages"

    def _look(self, followed: Sequence[str]) -> Look:
        answer = self._ledger.follow(followed, followed)
        return Look(
            answer["now"],
            {event["message_id"] or event["match_id"]: event for event in answer["events"]},
            {turn["turn_id"]: turn for turn in answer["turns"]},
        )

    def _wait(self, followed: Sequence[str], stage: Stage, progress: Progress = lambda _: None) -> Look:
        """Wait until all have come to a stage; `Stuck` if one of them cannot any more, or nothing goes on."""
        before: list[Stage] = []
        since = time.monotonic()
        while True:
            if self._stopping.is_set():
                raise Interrupted
            look = self._look(followed)
            _raise_what_ended(look)
            stages = [look.stage(each) for each in followed]
            progress(stages.count(Stage.ANSWERED))
            if min(stages) >= stage:
                return look
            if stages != before:
                before, since = stages, time.monotonic()
            if self._stands_still(stages, look, time.monotonic() - since):
                raise Stuck(_REMEDIES[min(stages)] + _last_error(look))
            self._stopping.wait(POLL_SECONDS)

    def _stands_still(self, stages: Sequence[Stage], look: Look, seconds: float) -> bool:
        if Stage.CLAIMED in stages:  # a group behind it waits until its conversation is free
            return seconds > self._answer_seconds
        match min(stages):
            case Stage.PUSHED:
                return seconds > CLAIMED_SECONDS
            case Stage.GROUPED:
                due = max(turn["due_at"] for turn in look.turns.values() if turn["state"] == "open")
                return bool(look.now - due > PUSHED_SECONDS)
            case _:
                return seconds > GROUPED_SECONDS


def _raise_what_ended(look: Look) -> None:
    for event in look.events.values():
        if event["error"]:
            raise Stuck(f"a message could not be grouped: {event['error']}")
    for turn in look.turns.values():
        if turn["state"] == "dead":
            raise Stuck(f"turn {turn['turn_id']} was given up: {turn['last_error']}")
        if turn["state"] == "cancelled" and turn["reason"] != "not_drawn":
            raise Stuck(f"turn {turn['turn_id']} was cancelled: {turn['reason']}")


def _last_error(look: Look) -> str:
    errors = [turn["last_error"] for turn in look.turns.values() if turn["last_error"]]
    return f" (last error: {errors[0]})" if errors else ""


def _detection(look: Look) -> tuple[float, ...]:
    return tuple(event["grouped_at"] - event["captured_at"] for event in look.events.values())
