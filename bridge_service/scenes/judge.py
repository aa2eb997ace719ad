"""The judge: how far messages and openers have come, and whether each was answered once and in time.

The judge reads the bridge's rows by `follow`, and what the bots said in the app's own table.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from bridge_service.machine.database import Connection, Row
from bridge_service.machine.ledger import Ledger
from bridge_service.worker.pacing import MAXIMUM_TYPING_SECONDS

POLL_SECONDS: Final = 0.05

GROUPED_SECONDS: Final = 15.0
"""Without notifications (a pooler in transaction mode) the schedulers look every few seconds."""

PUSHED_SECONDS: Final = 15.0
CLAIMED_SECONDS: Final = 30.0
ANSWERED_SECONDS: Final = 60.0
"""How long each stage may stand still, besides the delays that are set."""

EARLY_SECONDS: Final = 0.001
LATE_SECONDS: Final = 5.0
"""A push that is later than this is a fault; an earlier one is only slow."""


class Stage(IntEnum):
    """How far a message or a match has come."""

    WRITTEN = 0
    CAPTURED = 1
    GROUPED = 2
    PUSHED = 3
    CLAIMED = 4
    TYPING = 5
    ANSWERED = 6


_STAGES: Final = {
    "open": Stage.GROUPED,
    "composing": Stage.CLAIMED,
    "typing": Stage.TYPING,
    "answered": Stage.ANSWERED,
}
_REMEDIES: Final = {
    Stage.WRITTEN: "written and not captured: are the triggers there? run `python -m bridge_service check`",
    Stage.CAPTURED: "captured and not grouped: is `python -m schedulers` running?",
    Stage.GROUPED: "grouped and not pushed: is `python -m schedulers` running, and does Redis answer it? run `status`",
    Stage.PUSHED: "pushed and not answered: is a worker (`dramatiq bridge_service`) running?",
    Stage.CLAIMED: "taken by a worker and not answered: is it still running, and does the responder return?",
    Stage.TYPING: "drafted and not delivered: is a worker (`dramatiq bridge_service`) running?",
}


class Stuck(Exception):
    """Raised when a message or an opener stands still or has failed; says why, in one line."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a scene came to.

    Attributes:
      replies: turns that answered it.
      faults: what does not hold, a line each.
      detection: seconds from each capture to its group.
      push: seconds from each turn's planned time to its push.
    """

    replies: int
    faults: tuple[str, ...]
    detection: tuple[float, ...]
    push: tuple[float, ...]


Progress = Callable[[int], None]
"""Is told how many are answered by now."""


@dataclass(frozen=True, slots=True)
class Look:
    """Where things stand: the events by message or match, and their turns by id; see machine/sql/operate/follow.sql."""

    now: float
    events: dict[str, dict[str, Any]]
    turns: dict[int, dict[str, Any]]

    def turn(self, followed: str) -> dict[str, Any] | None:
        """Return the turn of a message or of a match's opener."""
        event = self.events.get(followed)
        return None if event is None else self.turns.get(event["turn_id"])

    def stage(self, followed: str) -> Stage:
        """Return how far it has come."""
        if followed not in self.events:
            return Stage.WRITTEN
        turn = self.turn(followed)
        if turn is None:
            return Stage.CAPTURED
        return Stage.ANSWERED if _is_settled(turn) else _STAGES.get(turn["state"], Stage.PUSHED)


class Judge:
    """Follows what the scenes write, and judges what became of it.

    Parameters:
      pause: lets so many seconds pass; an error that it raises ends the wait.
    """

    def __init__(self, connection: Connection, pause: Callable[[float], None]) -> None:
        self._connection = connection
        self.ledger = Ledger(connection)
        self.humans: set[str] = set()
        """Messages that a human wrote in a bot's name: none of them is a reply."""
        policy = self.ledger.policy()  # a scene that gives its bot a row in bridge.bots takes it back
        self.delay = policy["grouping_delay"]
        typing = MAXIMUM_TYPING_SECONDS if policy["typing_speed_cps"] else 0.0
        parts = policy["reply_parts"]
        self.patience: float = (
            ANSWERED_SECONDS + policy["thinking_delay_max"] + typing * parts + policy["part_pause_max"] * (parts - 1)
        )
        self._pause = pause

    def look(self, followed: Sequence[str]) -> Look:
        """Look where messages, and the openers of matches, stand."""
        answer = self.ledger.follow(followed, followed)
        return Look(
            answer["now"],
            {event["message_id"] or event["match_id"]: event for event in answer["events"]},
            {turn["turn_id"]: turn for turn in answer["turns"]},
        )

    def wait(self, followed: Sequence[str], stage: Stage, progress: Progress = lambda _: None) -> Look:
        """Wait until all have come to a stage.

        Raises:
          Stuck: one of them cannot come to it any more, or stands still for longer than its stage may take.
        """
        before: list[Stage] = []
        since = time.monotonic()
        while True:
            self._pause(0)
            look = self.look(followed)
            _raise_what_ended(look)
            stages = [look.stage(each) for each in followed]
            progress(stages.count(Stage.ANSWERED))
            if min(stages) >= stage:
                return look
            if stages != before:
                before, since = stages, time.monotonic()
            if self._stands_still(stages, look, time.monotonic() - since):
                raise Stuck(_REMEDIES[min(stages)] + _last_error(look))
            self._pause(POLL_SECONDS)

    def judge(
        self, look: Look, followed: Sequence[str], *, healthy: bool = True, planned: float | None = None
    ) -> Result:
        """Judge what is answered.

        Parameters:
          look: at the messages or openers of one scene, all answered.
          followed: all that was ever written in its conversations.
          healthy: False if a server was away, so that no push has a time to keep.
          planned: when the opener was planned, if it is one.
        """
        late = []
        if healthy:
            planned_at = [turn["planned_at"] if turn["kind"] == "reply" else planned for turn in look.turns.values()]
            pushed_at = [turn["queued_at"] for turn in look.turns.values()]
            pairs = zip(pushed_at, planned_at, strict=True)
            late = [pushed - plan for pushed, plan in pairs if None not in (pushed, plan)]
        return Result(
            sum(not _is_settled(turn) for turn in look.turns.values()),
            (*_untimely(late), *self._unmatched(look, followed)),
            tuple(event["grouped_at"] - event["captured_at"] for event in look.events.values()),
            tuple(late),
        )

    def wait_for(self, followed: Sequence[str], holds: Callable[[Look], bool], otherwise: str) -> Look:
        """Wait until something holds.

        Raises:
          Stuck: it does not within ANSWERED_SECONDS besides the delays that are set, or a turn was given up; with
            `otherwise` as the reason.
        """
        until = time.monotonic() + self.delay + self.patience
        while not holds(look := self.look(followed)):
            _raise_what_ended(look)
            if time.monotonic() > until:
                raise Stuck(otherwise + _last_error(look))
            self._pause(POLL_SECONDS)
        return look

    def pause(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self._pause(seconds)

    def rows(self, statement: str, *parameters: object) -> list[Row]:
        """Ask the database of the scenes."""
        return self._connection.execute(statement, parameters)

    def paused_until(self, match: str) -> float | None:
        """Return when a conversation's pause ends, in seconds since the epoch; None: it is not paused."""
        [[until]] = self.rows("SELECT extract(epoch FROM (bridge.state(%s) ->> 'paused_until')::timestamptz)", match)
        return None if until is None else float(until)

    def resume(self, match: str) -> None:
        """Take a conversation's pause back."""
        self.rows("SELECT bridge.resume(%s)", match)

    def _unmatched(self, look: Look, followed: Sequence[str]) -> Iterator[str]:
        """Compare what the bridge delivered with what stands in the app's table, in the look's conversations."""
        delivered: defaultdict[str, set[str]] = defaultdict(set)
        for turn in self.look(followed).turns.values():
            if turn["reply_message_id"] is not None:  # else it was a chosen silence
                delivered[turn["match_id"]].update((turn["reply_message_id"], *turn["part_ids"]))
        matches = {turn["match_id"] for turn in look.turns.values()}
        said = self._said(matches)
        extra = sum(len(said[match] - delivered[match] - self.humans) for match in matches)
        missing = sum(len(delivered[match] - said[match]) for match in matches)
        if extra:
            yield f"{extra} replies too many: a message was answered twice, or another program answers too"
        if missing:
            yield f"{missing} replies count as delivered and are not in table messages"

    def _said(self, matches: set[str]) -> defaultdict[str, set[str]]:
        """Return the bots' messages, by match."""
        said: defaultdict[str, set[str]] = defaultdict(set)
        for match, message in self._connection.execute(
            "SELECT m.match_id::text, m.id::text FROM messages m JOIN profiles p ON p.id = m.sender_id"
            " WHERE m.match_id = ANY (%s::uuid[]) AND p.is_bot",
            (list(matches),),
        ):
            said[match].add(message)
        return said

    def _stands_still(self, stages: Sequence[Stage], look: Look, seconds: float) -> bool:
        if {Stage.CLAIMED, Stage.TYPING} & set(stages):  # a group behind it waits until its conversation is free
            return seconds > self.patience
        match min(stages):
            case Stage.PUSHED:
                return seconds > CLAIMED_SECONDS
            case Stage.GROUPED:
                due = max(turn["due_at"] for turn in look.turns.values() if turn["state"] == "open")
                return bool(look.now - due > PUSHED_SECONDS)
            case _:
                return seconds > GROUPED_SECONDS


def _untimely(late: Sequence[float]) -> Iterator[str]:
    if late and min(late) < -EARLY_SECONDS:
        yield f"a turn was pushed {-min(late):.2f} s before its planned time"
    if late and max(late) > LATE_SECONDS:
        yield f"a turn was pushed {max(late):.1f} s after its planned time"


def _is_settled(turn: dict[str, Any]) -> bool:
    """Return whether a human has answered what the turn held, so that the bot owes nothing."""
    return (turn["state"], turn["reason"]) == ("cancelled", "taken_over")


def _raise_what_ended(look: Look) -> None:
    for event in look.events.values():
        if event["error"]:
            raise Stuck(f"a message could not be grouped: {event['error']}")
    for turn in look.turns.values():
        if turn["state"] == "dead":
            raise Stuck(f"turn {turn['turn_id']} was given up: {turn['last_error']}")
        if turn["state"] == "cancelled" and turn["reason"] != "not_drawn" and not _is_settled(turn):
            raise Stuck(f"turn {turn['turn_id']} was cancelled: {turn['reason']}")


def _last_error(look: Look) -> str:
    errors = [turn["last_error"] for turn in look.turns.values() if turn["last_error"]]
    return f" (last error: {errors[0]})" if errors else ""
