"""The scenes in which a bot gives way: to a newer message, to a human, to the night, to a typing person.

Each gives its bot a policy for its time, and takes it back.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from bridge_service.scenes.judge import EARLY_SECONDS, Judge, Look, Result, Stage, Stuck
from bridge_service.scenes.script import Script, Write

PARTS: Final = 3
PART_PAUSE_SECONDS: Final = 2.0
"""Long enough for a message between two parts, on a slow machine."""

TAKEOVER_SECONDS: Final = 5.0
HELD_SECONDS: Final = 600.0
"""A turn that is due later than this is held: no delay of a scene is as long."""

TYPED_SECONDS: Final = 1.0
"""For how long a person types on when the group would have closed."""

RENEWED_SECONDS: Final = 0.5

HOURS_AROUND_NOW: Final = """
    SELECT to_char(l.local - interval '1 hour', 'HH24:MI') || '-' || to_char(l.local + interval '1 hour', 'HH24:MI')
    FROM (SELECT now() AT TIME ZONE %s AS local) l"""
"""Takes a time zone. `HH:MM-HH:MM` by the clock of PostgreSQL."""


class LeftOut(Exception):
    """Raised by a scene that cannot be played here; says why, in one line."""


class Tact:
    """Plays these scenes with one bot; each may raise `Stuck` or a BridgeError.

    Parameters:
      bot: its id. It has no row of its own in bridge.bots before and after a scene.
      pace: what is set for it in every scene, by column.
    """

    def __init__(self, script: Script, judge: Judge, bot: str, pace: Mapping[str, object] | None = None) -> None:
        self._script = script
        self._judge = judge
        self._bot = bot
        self._pace = pace or {}

    def interrupted(self, first: Write, second: Write) -> Result:
        """Let a message come between two messages of one reply: the rest is withheld, and the newer one is answered.

        Raises:
          LeftOut: the responder wrote a single message.
        """
        with self._ruled(
            reply_parts=PARTS,
            part_pause_min=PART_PAUSE_SECONDS,
            part_pause_max=PART_PAUSE_SECONDS,
            second_message="merge",
        ):
            sent = self._script.write([first])

            def begun(look: Look) -> bool:
                turn = look.turn(sent[0])
                return turn is not None and bool(turn["state"] == "answered" or turn["part_ids"])

            look = self._judge.wait_for(sent, begun, "the first message of the reply did not come")
            if look.stage(sent[0]) is Stage.ANSWERED:
                raise LeftOut("the responder answers with one message")
            sent += self._script.write([second])
            result = self._script.answered(sent)
            turn = self._judge.look(sent).turn(sent[0])
        withheld = turn is not None and turn["reason"] == "interrupted" and len(turn["part_ids"]) < PARTS
        return _with(result, None if withheld else "a newer message did not withhold the rest of the reply")

    def takeover(self, match: str, first: Write, human: Write, second: Write) -> Result:
        """Let a human write in the bot's name: the bot is silent, and answers after its pause what came meanwhile."""
        with self._ruled(takeover_pause=TAKEOVER_SECONDS):
            sent = self._script.write([first])
            self._judge.wait(sent, Stage.GROUPED)
            self._judge.humans.add(human())
            look = self._judge.wait(sent, Stage.ANSWERED)
            if any(turn["state"] == "answered" for turn in look.turns.values()):
                raise Stuck("the bot answered although a human had written in its name")
            until = self._judge.paused_until(match)
            newer = self._script.write([second])
            result = self._script.answered(sent + newer, healthy=False)
            turn = self._judge.look(newer).turn(newer[0])
            self._judge.resume(match)
        kept = turn is not None and until is not None and turn["claimed_at"] >= until - EARLY_SECONDS
        return _with(result, None if kept else "the bot was not silent after a human had written in its name")

    def night(self, write: Write, asleep: Callable[[], None] = lambda: None) -> Result:
        """Let a message come at night: it is held, and answered when the night is over.

        Parameters:
          asleep: called when the message is held.
        """
        [[hours]] = self._judge.rows(HOURS_AROUND_NOW, self._judge.ledger.policy(self._bot)["timezone"])
        with self._ruled(quiet_hours=hours, quiet_hours_weekend=hours):
            sent = self._script.write([write])

            def held(look: Look) -> bool:
                turn = look.turn(sent[0])
                return turn is not None and turn["state"] == "open" and turn["due_at"] > look.now + HELD_SECONDS

            turn = self._judge.wait_for(sent, held, "the bot does not heed its quiet hours").turn(sent[0])
            asleep()
            self._set(quiet_hours="none", quiet_hours_weekend="none")
            result = self._script.answered(sent, healthy=False)
        slept = turn is not None and turn["queued_at"] is None
        return _with(result, None if slept else "the message was pushed in quiet hours")

    def typing(self, first: Write, second: Write, types: Callable[[], None], stops: Callable[[], None]) -> Result:
        """Let a person go on typing: the group stays open, and one reply answers both messages.

        Parameters:
          types, stops: show in the app that the person types, and does no longer.
        """
        delay = self._judge.ledger.policy(self._bot)["grouping_delay"] + 1
        with self._ruled(grouping_mode="fixed", grouping_max=delay + self._judge.patience):
            sent = self._script.write([first])
            types()
            look = self._judge.wait(sent, Stage.GROUPED)
            closes = max(turn["due_at"] for turn in look.turns.values())
            while look.now < closes + TYPED_SECONDS:
                types()
                self._judge.pause(RENEWED_SECONDS)
                look = self._judge.look(sent)
            sent += self._script.write([second])
            stops()
            result = self._script.answered(sent)
        return _with(result, "the group was closed while the person typed" if result.replies > 1 else None)

    @contextmanager
    def _ruled(self, **values: object) -> Iterator[None]:
        rules = {**self._pace, **values}
        self._set(**rules)
        try:
            yield
        finally:
            self._set(**dict.fromkeys(rules))

    def _set(self, **values: object) -> None:
        constraint = self._judge.ledger.set_bot(self._bot, values)
        if constraint:
            raise Stuck(f"bridge.bots refuses what the scene needs: {constraint}")


def _with(result: Result, fault: str | None) -> Result:
    return replace(result, faults=(*([fault] if fault else []), *result.faults))
