"""The steps of the machine as Python calls: rows in, dataclasses out. The only caller of the functions in sql/.

Every method is one call of one function in one transaction, and may be called again after any error: Python decides
when, PostgreSQL decides whether. All of them raise what `Database.call` raises.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from bridge_service.machine.answers import Deliveries, Due, Grouped, Outcome, Overtaken, Push
from bridge_service.machine.database import Database
from bridge_service.machine.tasks import task_of
from bridge_service.responders.budget import Call
from bridge_service.turns import Action, Kind

LEASE_SECONDS: Final = 15.0
"""How long a worker owns a turn without renewing; it renews every third of it."""

PUSH_WINDOW: Final = 2000
"""The push limit: how many turns are `queued` at most; the rest wait as `open` (T9)."""

PUSH_AGAIN_SECONDS: Final = 10.0
PUSH_AGAIN_MAX_SECONDS: Final = 20.0
"""When a push is believed lost. To push again costs nothing while the first push still waits in Redis."""

HISTORY_LINES: Final = 50

SET_MILLISECONDS: Final = 1000
"""The statement timeout of a set of deliveries. It ends after 50 ms, except if a trigger of the app's takes longer."""

HELD_BATCH: Final = 1000
"""Held turns of a bot that one sweep makes due."""


class Store:
    """The machine, seen from Python."""

    def __init__(self, database: Database) -> None:
        """Use this pool."""
        self._database = database

    def group(self, *, after: int = 0, only: str | None = None) -> list[Grouped]:
        """Group what is ungrouped, above the event id `after`; in one conversation only, if `only` names it."""
        rows = self._database.call(
            "SELECT g.*, g.kind <> 'match' AND bridge.beside_active(g.match_id),"
            " CASE WHEN g.state = 'cancelled' AND g.place = 1 THEN bridge.reason_of(g.turn_id) END"
            " FROM bridge.group_events(%s, p_only => %s) g",
            after,
            only,
        )
        return [Grouped(*row) for row in rows]

    def overtake(self, match_ids: Sequence[str] | None = None) -> list[Overtaken]:
        """Let replies under way make way for newer messages; in all conversations if none are named."""
        rows = self._database.call(
            "SELECT * FROM bridge.overtake(%s::uuid[])", None if match_ids is None else list(match_ids)
        )
        return [Overtaken(*row) for row in rows]

    def ungrouped_matches(self, limit: int) -> list[str]:
        """Conversations with ungrouped events, the oldest first."""
        [[matches]] = self._database.call("SELECT bridge.ungrouped_matches(%s)::text[]", limit)
        return list(matches)

    def set_aside(self, match_id: str, error: str) -> int:
        """Set a conversation's ungrouped events aside; how many they were."""
        return self._number("SELECT bridge.set_aside(%s, %s)", match_id, error)

    def capture_notified(self, match_id: str, message_id: str | None) -> int | None:
        """Capture what a foreign trigger told of; the event's id, or None if there is nothing to capture."""
        [[event]] = self._database.call("SELECT bridge.capture_notified(%s, %s)", match_id, message_id)
        return None if event is None else int(event)

    def set_environment(self, values: Mapping[str, object]) -> bool:
        """Write what this process's environment sets of the policy, by column; whether it was something new."""
        [[written]] = self._database.call("SELECT bridge.set_environment(%s)", json.dumps(values))
        return bool(written)

    def notify(self, channel: str, payload: str) -> bool:
        """Send a notification; False if PostgreSQL's queue of notifications is filling, and it was not sent."""
        [[sent]] = self._database.call("SELECT bridge.notify(%s, %s)", channel, payload)
        return bool(sent)

    def triggers_installed(self) -> bool:
        """Whether the capture triggers are in place and enabled."""
        [[installed]] = self._database.call("SELECT bridge.triggers_installed()")
        return bool(installed)

    def queue_id(self) -> str:
        """Return the ID that stands in the names of this installation's keys in Redis."""
        [[queue_id]] = self._database.call("SELECT bridge.queue_id()")
        return str(queue_id)

    def push_due(self, limit: int) -> list[Push]:
        """Take what is due, except deliveries, to be enqueued by the caller."""
        rows = self._database.call(
            "SELECT * FROM bridge.push_due(%s, %s, %s, %s, p_deliveries => false)",
            PUSH_WINDOW,
            limit,
            PUSH_AGAIN_SECONDS,
            PUSH_AGAIN_MAX_SECONDS,
        )
        return [Push(row[0], row[1], Kind(row[2]), *row[3:]) for row in rows]

    def next_due(self) -> Due:
        """When to push again."""
        [row] = self._database.call("SELECT * FROM bridge.next_due(%s, p_deliveries => false)", PUSH_WINDOW)
        return Due(*row)

    def reset_pushes(self) -> int:
        """Make everything due that was pushed and not taken; how many turns that is."""
        return self._number("SELECT bridge.reset_pushes()")

    def claim(self, turn_id: int, token: UUID, *, lines: int = HISTORY_LINES, plain: bool = True) -> Outcome:
        """Claim a turn for a worker, with at most `lines` lines of history.

        Parameters:
          plain: whether the call to the responder cannot be ended; then no newer message overtakes it (E3).
        """
        [[answer]] = self._database.call(
            "SELECT bridge.claim(%s, %s, %s, %s, p_plain => %s)", turn_id, str(token), LEASE_SECONDS, lines, plain
        )
        task = task_of(turn_id, token, answer) if answer["outcome"] == "claimed" else None
        return Outcome(answer["outcome"], answer, task)

    def renew(self, leases: Mapping[int, UUID]) -> list[int]:
        """Renew leases; the turns that were not renewed: lost, or locked by another session."""
        [[lost]] = self._database.call(
            "SELECT bridge.renew(%s::bigint[], %s::uuid[], %s)", *_unzip(leases), LEASE_SECONDS
        )
        return list(lost)

    def lost_leases(self, leases: Mapping[UUID, int]) -> list[UUID]:
        """Of these tokens and the turns that they claimed, return the tokens that are known to be lost."""
        [[lost]] = self._database.call(
            "SELECT bridge.lost_leases(%s::bigint[], %s::uuid[])::text[]", list(leases.values()), [*map(str, leases)]
        )
        return [UUID(token) for token in lost]

    def release(self, leases: Mapping[int, UUID]) -> int:
        """Give turns back unfinished; how many were still this worker's."""
        return self._number("SELECT bridge.release(%s::bigint[], %s::uuid[])", *_unzip(leases))

    def finish(
        self,
        turn_id: int,
        token: UUID,
        draft: str,
        *,
        pause: float,
        action: Action = "say",
        typing: float = 0.0,
        rest: Sequence[tuple[str, float]] = (),
    ) -> Outcome:
        """Store a draft, to be delivered after `pause` seconds; a reply without a pause is delivered at once.

        Parameters:
          draft: '' says nothing, which only `silence` and `leave` may.
          typing: the last seconds of the pause, in which the bot's indicator is shown; 0: it is not.
          rest: the reply's other messages, each with the seconds since the one before it; not for an opener.
        """
        return self._step(
            "SELECT bridge.finish(%s, %s, %s, %s, p_action => %s, p_typing => %s, p_rest => %s, p_pauses => %s)",
            turn_id,
            str(token),
            draft,
            pause,
            action,
            typing,
            [text for text, _ in rest] or None,
            [seconds for _, seconds in rest] or None,
        )

    def show_due(self, limit: int) -> float | None:
        """Bring the indicators that are due into line with their turns.

        Returns:
          Seconds until the next one is due, below 0 if it is due; None if none is planned.
        """
        [[due_in]] = self._database.call("SELECT bridge.show_due(%s)", limit)
        return None if due_in is None else float(due_in)

    def deliver(self, turn_id: int) -> Outcome:
        """Deliver a draft whose time has come."""
        return self._step("SELECT bridge.deliver_turn(%s)", turn_id)

    def deliver_due(self, limit: int, alone: Sequence[int]) -> Deliveries:
        """Deliver a set of replies whose time has come, except those of `alone`.

        It is called once. If it raises, one turn may have spoiled it for the others.
        """
        [[answer]] = self._database.call_once(
            f"SET LOCAL statement_timeout = {SET_MILLISECONDS}; SELECT bridge.deliver_due(%s, %s::bigint[])",
            limit,
            list(alone),
        )
        outcomes = {turn_id: Outcome(each["outcome"], each) for turn_id, each in answer["turns"]}
        return Deliveries(outcomes, answer["due_in"])

    def due_deliveries(self, limit: int, alone: Sequence[int]) -> list[int]:
        """Return the turns that `deliver_due` would take now."""
        [[turns]] = self._database.call("SELECT bridge.due_deliveries(%s, %s::bigint[])", limit, list(alone))
        return list(turns)

    def fail(
        self, turn_id: int, token: UUID, error: str, *, retry: float, counts: bool, refused: str | None = None
    ) -> Outcome:
        """Give up a claim after an error, to be tried again after `retry` seconds, or later if it does not count.

        Parameters:
          refused: why PostgreSQL refused the draft, if that was the error; see Task.
        """
        return self._step(
            "SELECT bridge.fail(%s, %s, %s, %s, %s, p_refused => %s)",
            turn_id,
            str(token),
            error,
            retry,
            counts,
            refused,
        )

    def hold(self, turn_id: int, token: UUID) -> Outcome:
        """Give up a claim because a limit is reached: the turn waits until the next day."""
        return self._step("SELECT bridge.hold(%s, %s)", turn_id, str(token))

    def plan_held(self) -> int:
        """Make held turns due whose limit was raised; how many they were."""
        return self._number("SELECT bridge.plan_held(%s)", HELD_BATCH)

    def reserve_call(self, call: Call) -> Mapping[str, Any]:
        """Reserve a call of a model; see sql/steps/reserve_call.sql."""
        [[answer]] = self._database.call(
            "SELECT bridge.reserve_call(%s, %s, %s, %s, %s, %s, %s)",
            None if call.claim is None else str(call.claim),
            call.number,
            call.turn_id,
            call.model,
            call.tokens_in,
            call.tokens_out,
            call.seconds,
        )
        return dict(answer)

    def settle_call(self, call: Call, spent: tuple[int, int] | None, outcome: str) -> bool:
        """Settle a call; whether it was settled now.

        Parameters:
          spent: tokens in and out; None: unknown, and the call keeps its reservation.
        """
        [[settled]] = self._database.call(
            "SELECT bridge.settle_call(%s, %s, %s, %s, %s)",
            None if call.claim is None else str(call.claim),
            call.number,
            *(spent or (None, None)),
            outcome,
        )
        return bool(settled)

    def unreadable(self, turn_id: int, step: str, error: str) -> Outcome:
        """Count an attempt of a turn whose `step`, `compose` or `deliver`, PostgreSQL refused to read."""
        return self._step("SELECT bridge.unreadable(%s, %s, %s)", turn_id, step, error)

    def prune(self, retention_days: float, limit: int) -> int:
        """Delete finished turns older than the retention; how many went."""
        return self._number("SELECT bridge.prune(%s, %s)", retention_days, limit)

    def close_minutes(self, limit: int) -> int:
        """Count at most `limit` minutes that are over; how many were counted. See sql/upkeep/close_minutes.sql."""
        return self._number("SELECT bridge.close_minutes(%s)", limit)

    def heartbeat(
        self,
        process: UUID,
        role: str,
        *,
        uptime: float,
        rss_bytes: int,
        cpu_seconds: float,
        ended: bool,
        environment: Mapping[str, object],
    ) -> None:
        """Note that a process lives, or that it has ended in order.

        Parameters:
          process: drawn by the process when it started, `uptime` seconds ago.
          cpu_seconds: of processor time since then.
          environment: what the process's environment sets of the policy, by column of bridge.bots.
        """
        self._database.call(
            "SELECT bridge.heartbeat(%s, %s, %s, %s, %s, %s, %s)",
            str(process),
            role,
            uptime,
            rss_bytes,
            cpu_seconds,
            ended,
            json.dumps(environment),
        )

    def note_incident(self, kind: str, role: str, times: int, age: float) -> None:
        """Note that the signal of this name came `times` times, first `age` seconds ago."""
        self._database.call("SELECT bridge.note_incident(%s, %s, %s, %s)", kind, role, times, age)

    def _number(self, statement: str, *parameters: object) -> int:
        [[number]] = self._database.call(statement, *parameters)
        return int(number)

    def _step(self, statement: str, *parameters: object) -> Outcome:
        [[answer]] = self._database.call(statement, *parameters)
        return Outcome(answer["outcome"], answer)


def _unzip(leases: Mapping[int, UUID]) -> tuple[list[int], list[str]]:
    return list(leases), [str(token) for token in leases.values()]
