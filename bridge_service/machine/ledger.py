"""What the operator asks and decides, as Python calls. The steps of the machine are in steps.py.

Every method is one call of one function in sql/operate or sql/policy, in one transaction. All of them raise what
`Connection.execute` raises. Nothing here returns the text of a message. Turns and stories are the JSON objects that the
functions `turn_story` and `why` build, with ids and times in UTC as text.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import tenacity

from bridge_service.errors import DatabaseBusy, RightMissing
from bridge_service.machine.database import CALL_SECONDS, Connection

LONG_CALL_SECONDS: Final = 600.0
"""For a call that looks at every message or turn, which takes some seconds a million."""

REPLAY_BATCH: Final = 10_000
FAULTS_SHOWN: Final = 20
_PAGE: Final = 1000
# Sent in one message with the call, so it ends with the call and reaches no other client of a pooler.
_TAKING_LONG: Final = f"SET LOCAL statement_timeout = {LONG_CALL_SECONDS * 1000:.0f}; "

_patiently = tenacity.retry(
    retry=tenacity.retry_if_exception_type(DatabaseBusy),
    wait=tenacity.wait_random(0.1, 0.5),
    stop=tenacity.stop_after_attempt(5),
    reraise=True,
)


@dataclass(frozen=True, slots=True)
class Status:
    """How many turns are in which state. A conversation whose events are ungrouped counts as `open`.

    Attributes:
      overdue: due and not taken yet, whatever the state.
      oldest_unanswered_seconds: since the capture of the oldest message that waits for its reply; 0 if none waits.
      held: open turns that are held on purpose, by cause. The rest: see sql/operate/on_hold.sql.
    """

    open: int
    queued: int
    composing: int
    typing: int
    overdue: int
    dead: int
    oldest_unanswered_seconds: float
    held: Mapping[str, int]
    paused: int
    taken_over: int
    bots_paused: int


@dataclass(frozen=True, slots=True)
class Fault:
    """A message that is unaccounted for or doubled, and why it counts as that."""

    message_id: str
    fault: str


@dataclass(frozen=True, slots=True)
class Accounts:
    """Each message from a person to a bot in one of the columns; see sql/operate/verify.sql.

    Attributes:
      doubled: answered twice; counted beside the columns.
      undisclosed: conversations without the disclosure that was due there; see sql/operate/undisclosed.sql.
      faults: the first `FAULTS_SHOWN` of those that are unaccounted for or doubled.
      undisclosed_in: the matches of the first `FAULTS_SHOWN` undisclosed conversations.
    """

    messages: int
    answered: int
    open: int
    cancelled: int
    dead: int
    unaccounted: int
    doubled: int
    undisclosed: int
    faults: tuple[Fault, ...]
    undisclosed_in: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a dead turn.

    Attributes:
      outcome: `retried`, `dropped`, `cancelled` (an opener whose match has a message by now) or `nothing`.
      state: of the turn, if it was not dead; None if there is no such turn.
      turn_id: the turn in which a retried one goes on.
    """

    outcome: str
    state: str | None
    turn_id: int | None


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did.

    Attributes:
      found: messages that no event knew.
      old: of these, those from before the installation.
      ignored: of these, those that are older than IGNORE_OLDER_DAYS: they are kept and not answered.
      captured: of these, those that have an event now; 0 in a dry run.
      given_back: events that had been set aside, or whose conversation was gone and is there again; in a dry run those
        that would be given back.
    """

    found: int = 0
    old: int = 0
    ignored: int = 0
    captured: int = 0
    given_back: int = 0


@dataclass(frozen=True, slots=True)
class BoundTable:
    """One of the app's tables, as the installation has noted it; names are quoted and qualified.

    Attributes:
      oid: identity of the table that the installation is bound to.
      name: what that table is called now; None if it is gone.
      laid_for: what the bridge's functions call it.
      found: identity of what has this name now; None if there is none.
      view: whether that is a view.
    """

    oid: int
    name: str | None
    laid_for: str
    found: int | None
    view: bool

    @property
    def fault(self) -> str | None:
        """What parts the table from the functions; None if they fit, also by way of a view with the old name."""
        if self.name is None and self.found is None:
            return f"{self.laid_for} is gone"
        if self.name is None:
            return f"{self.laid_for} was dropped and made anew"
        if self.name != self.laid_for and self.found is None:
            return f"{self.laid_for} is now called {self.name}"
        if self.found != self.oid and not self.view:
            return f"{self.laid_for} is now called {self.name}, and another table has its name"
        return None


@dataclass(frozen=True, slots=True)
class Installed:
    """What was laid into a database.

    Attributes:
      migration: number of the newest migration; None if none is noted, as after a restore without data.
      digests: of the files that the functions were laid from, by function.
      changed: the functions that are no longer as they were laid.
      installed_at: when; None if that is not noted.
      tables: the app's tables that the installation is bound to, by the contract's names; none before migration 0006.
    """

    migration: int | None
    digests: dict[str, str]
    changed: tuple[str, ...]
    installed_at: str | None
    tables: dict[str, BoundTable]


class Ledger:
    """The books of one database."""

    def __init__(self, connection: Connection, *, seconds: float = CALL_SECONDS) -> None:
        """Use this connection; a call takes at most `seconds`, unless it has to look at every message."""
        self._connection = connection
        self._seconds = seconds

    def assert_complete(self) -> None:
        """Raise SchemaIncomplete if rows are missing that `migrate` writes.

        A role that may call only some of the steps is let through: the next call tells what it may not do.
        """
        with contextlib.suppress(RightMissing):
            self._connection.execute("SELECT bridge.assert_complete()", seconds=self._seconds)

    def status(self) -> Status:
        """Count the turns by state."""
        return Status(**self._ask("SELECT bridge.status() || bridge.on_hold()"))

    def policy(self, bot_id: str | None = None) -> dict[str, Any]:
        """Return what holds for a bot; None: for a bot without a row of its own."""
        return {name: told["value"] for name, told in self.bot(bot_id).items()}

    def bots(self) -> list[dict[str, Any]]:
        """Return the rows of policy; see sql/policy/bots_list.sql."""
        return [row for [row] in self._connection.execute("SELECT bridge.bots_list()", seconds=self._seconds)]

    def bot(self, bot_id: str | None) -> dict[str, dict[str, Any]]:
        """Tell what holds for a bot and which row says so; see sql/policy/bots_show.sql."""
        return self._ask("SELECT bridge.bots_show(%s)", bot_id)

    @_patiently
    def set_bot(self, bot_id: str | None, values: Mapping[str, object]) -> str | None:
        """Set a bot's policy, or with None the row `default`; the constraint that refuses it, or None."""
        return self._ask("SELECT bridge.set_bot(%s, %s)", bot_id, json.dumps(values)).get("constraint")

    def queue_id(self) -> str:
        """Return the ID that stands in the names of this installation's keys in Redis."""
        [[queue_id]] = self._connection.execute("SELECT bridge.queue_id()", seconds=self._seconds)
        return str(queue_id)

    def verify(self, retention_days: float) -> Accounts:
        """Account for every message, and for the disclosures."""
        asked = (retention_days, FAULTS_SHOWN)
        answer = self._ask(
            _TAKING_LONG + "SELECT bridge.verify(%s, %s) || bridge.undisclosed(%s, %s)",
            *asked,
            *asked,
            seconds=LONG_CALL_SECONDS,
        )
        faults = tuple(Fault(**fault) for fault in answer.pop("faults"))
        conversations = tuple(answer.pop("conversations"))
        return Accounts(**answer, faults=faults, undisclosed_in=conversations)

    def why(self, message_id: str) -> dict[str, Any] | None:
        """Tell the story of a message; None if no event knows it."""
        return self._find(_TAKING_LONG + "SELECT bridge.why(%s)", message_id, seconds=LONG_CALL_SECONDS)

    def spending(self, days: int) -> list[dict[str, Any]]:
        """Return what calls of a model came to on the last days; see sql/operate/spending.sql."""
        return [row for [row] in self._connection.execute("SELECT bridge.spending(%s)", (days,), seconds=self._seconds)]

    def conversation(self, match_id: str) -> dict[str, Any] | None:
        """Tell where a conversation stands; None if the bridge does not know it."""
        return self._find("SELECT bridge.conversation_story(%s)", match_id)

    @_patiently
    def resume(self, match_id: str) -> bool:
        """Let the bot answer in a conversation again; whether it was paused."""
        [[resumed]] = self._connection.execute("SELECT bridge.resume(%s)", (match_id,), seconds=self._seconds)
        return bool(resumed)

    @_patiently
    def pause(self, match_id: str, until: datetime | None) -> bool:
        """Let the bot be silent in a conversation until an aware time, or until `resume`; False if it has no bot."""
        [[paused]] = self._connection.execute("SELECT bridge.pause(%s, %s)", (match_id, until), seconds=self._seconds)
        return bool(paused)

    @_patiently
    def pause_bot(self, bot_id: str, until: datetime | None) -> None:
        """Let a bot be silent everywhere until an aware time, or until `resume_bot`."""
        self._connection.execute("SELECT bridge.pause_bot(%s, %s)", (bot_id, until), seconds=self._seconds)

    @_patiently
    def resume_bot(self, bot_id: str) -> bool:
        """Take a bot's own pause back; whether there was one."""
        [[resumed]] = self._connection.execute("SELECT bridge.resume_bot(%s)", (bot_id,), seconds=self._seconds)
        return bool(resumed)

    def dead(self) -> Iterator[dict[str, Any]]:
        """Go through the dead turns, by id."""
        after = 0
        while True:
            rows = self._connection.execute("SELECT bridge.dead_turns(%s, %s)", (after, _PAGE), seconds=self._seconds)
            yield from (turn for [turn] in rows)
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]["turn_id"]

    def turn(self, turn_id: int) -> dict[str, Any] | None:
        """Tell of one turn, dead or not; None if there is none."""
        return self._find("SELECT bridge.dead_turn(%s)", turn_id)

    @_patiently
    def retry(self, turn_id: int) -> Decision:
        """Let a dead turn try again."""
        return _decision(self._ask("SELECT bridge.retry_dead(%s)", turn_id))

    @_patiently
    def drop(self, turn_id: int) -> Decision:
        """Give a dead turn up."""
        return _decision(self._ask("SELECT bridge.drop_dead(%s)", turn_id))

    @_patiently
    def replay(
        self,
        since: datetime | None,
        until: datetime | None,
        match_id: str | None,
        *,
        retention_days: float,
        dry_run: bool,
    ) -> Replayed:
        """Capture one batch of what no event knows, and give back what is owed again; or only count all of it.

        Parameters:
          since, until: aware, by the app's times; None: as far back as `verify` looks, until now.
          match_id: one conversation only.
        """
        answer = self._ask(
            _TAKING_LONG + "SELECT bridge.replay(%s::timestamptz, %s::timestamptz, %s::uuid, %s, %s, %s)",
            since,
            until,
            match_id,
            retention_days,
            REPLAY_BATCH,
            dry_run,
            seconds=LONG_CALL_SECONDS,
        )
        return Replayed(answer["found"], answer["old"], answer["ignored"], answer["captured"], answer["given_back"])

    def report(self, seconds: float) -> dict[str, Any]:
        """Tell what the last `seconds` came to; see sql/operate/report.sql."""
        return self._ask(_TAKING_LONG + "SELECT bridge.report(%s)", seconds, seconds=LONG_CALL_SECONDS)

    def processes(self, seconds: float, silence: float) -> list[dict[str, Any]]:
        """Tell of the processes seen within the last `seconds`; see sql/operate/processes.sql.

        Parameters:
          silence: seconds after which one that was not seen any more counts as vanished.
        """
        rows = self._connection.execute("SELECT bridge.processes(%s, %s)", (seconds, silence), seconds=self._seconds)
        return [process for [process] in rows]

    def follow(self, messages: Sequence[str], matches: Sequence[str]) -> dict[str, Any]:
        """Tell where messages, and the openers of matches, stand; see sql/operate/follow.sql."""
        return self._ask("SELECT bridge.follow(%s::uuid[], %s::uuid[])", list(messages), list(matches))

    @_patiently
    def plan_opener(self, match_id: str, delay: float) -> dict[str, Any]:
        """Plan a match's opener in `delay` seconds, whatever was drawn for it; see sql/operate/plan_opener.sql."""
        return self._ask("SELECT bridge.plan_opener(%s, %s)", match_id, delay)

    @_patiently
    def forget(self, matches: Sequence[str]) -> int:
        """Delete what the bridge knows of matches that are gone from the app; how many rows went."""
        [[count]] = self._connection.execute(
            _TAKING_LONG + "SELECT bridge.forget_matches(%s::uuid[])", (list(matches),), seconds=LONG_CALL_SECONDS
        )
        return int(count)

    def installed(self) -> Installed:
        """Tell what was laid into this database."""
        answer = self._ask("SELECT bridge.installed()")
        tables = {name: BoundTable(**table) for name, table in (answer.get("tables") or {}).items()}
        return Installed(
            answer["migration"], answer["digests"], tuple(answer["changed"]), answer["installed_at"], tables
        )

    def sequences_behind(self) -> list[str]:
        """Return the sequences of the bridge's that give out ids which their tables hold already."""
        [[names]] = self._connection.execute("SELECT bridge.sequences_behind()", seconds=self._seconds)
        return list(names)

    def row_security(self) -> dict[str, Any]:
        """Tell what row-level security leaves of the app's tables to the bridge; see sql/operate/row_security.sql."""
        return self._ask("SELECT bridge.row_security()")

    def _ask(self, statement: str, *parameters: object, seconds: float | None = None) -> dict[str, Any]:
        return self._find(statement, *parameters, seconds=seconds) or {}

    def _find(self, statement: str, *parameters: object, seconds: float | None = None) -> dict[str, Any] | None:
        [[answer]] = self._connection.execute(statement, parameters, seconds=seconds or self._seconds)
        return None if answer is None else dict(answer)


@contextmanager
def open_ledger(url: str, command: str) -> Iterator[Ledger]:
    """Give the books of the database at `url`, on a connection named for the command.

    Raises:
      DatabaseUnavailable: it does not answer.
      SchemaMissing: `migrate` did not run here, or not to its end.
    """
    connection = Connection(url, application=f"bridge {command}")
    try:
        ledger = Ledger(connection)
        ledger.assert_complete()
        yield ledger
    finally:
        connection.close()


def _decision(answer: dict[str, Any]) -> Decision:
    return Decision(answer["outcome"], answer.get("state"), answer.get("turn_id"))
