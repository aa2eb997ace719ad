"""Tests of the rules of concurrency, each of which is seen to fail with its rule taken out.

    @without(("claim", "AND t.token IS NULL", ""))
    def test_T5_...(bridge: Bridge) -> None:

makes two tests: `[intact]` runs the body on a database with the bridge as it is, `[without]` runs it on one where
`claim` was laid with that text replaced, and passes only if the body fails there.
"""

from __future__ import annotations

import functools
import logging
import re
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar
from uuid import UUID, uuid4

import psycopg2
import psycopg2.errors
import psycopg2.extras
import pytest

from bridge_service.errors import BridgeError
from bridge_service.install.files import SQL_FOLDER
from bridge_service.machine.database import Connection, Database
from bridge_service.machine.steps import Store
from tests.support import clock
from tests.support.policy import set_grouping, set_policy
from tests.support.roles import ADMIN, APP
from tests.support.waiting import eventually, wait_for_lock_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg2.extensions import connection as AppConnection  # noqa: N812 - as in waiting.py
    from psycopg2.sql import Composable

    from bridge_service.machine.answers import Grouped, Outcome, Push
    from bridge_service.machine.database import Row
    from tests.support.roles import Urls

CAMILLE: Final = "b0000000-0000-4000-8000-000000000001"
PAUL: Final = "b0000000-0000-4000-8000-000000000002"
LEA: Final = "a0000000-0000-4000-8000-000000000001"
HUGO: Final = "a0000000-0000-4000-8000-000000000002"
INES: Final = "a0000000-0000-4000-8000-000000000003"

GROUPING_DELAY: Final = 15.0
MAX_MERGES: Final = 3
INITIATION_DELAY: Final = 60.0

Taken = tuple[str, ...]
"""What to take out: (function, old text, new text) or ("sql", statement)."""

_GROUP_EVENTS: Final = (SQL_FOLDER / "steps" / "group_events.sql").read_text(encoding="utf-8")
[JOINS] = re.findall(r"(ON CONFLICT \(match_id\) WHERE bridge\.is_waiting[^;]*);", _GROUP_EVENTS)
NEVER_JOINS: Final = ("group_events", JOINS, JOINS.partition("DO UPDATE")[0] + "DO NOTHING")
"""What a grouping does that inserts and looks later: it joins a turn that is being claimed (T2)."""

T = TypeVar("T")

logger = logging.getLogger(__name__)

# A test that fails because the changed function does not even run would prove nothing.
_NONSENSE: Final = (
    psycopg2.errors.SyntaxError,
    psycopg2.errors.UndefinedColumn,
    psycopg2.errors.UndefinedFunction,
    psycopg2.errors.UndefinedTable,
    psycopg2.errors.AmbiguousColumn,
    psycopg2.errors.AmbiguousFunction,
    psycopg2.errors.DatatypeMismatch,
)
_NONSENSE_STATES: Final = re.compile(r"SQLSTATE (42601|42703|42883|42P01|42702|42725|42804)")
_REFUSED_STATE: Final = "SQLSTATE 42501"


def without(*taken: Taken, refused: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test twice: with the rule, and without it, where it must fail.

    Parameters:
      taken: either ("function", "old text", "new text"), where white space counts as one space and the old text has to
        be found; or ("sql", "statement"), run in the database afterwards. What is not in a function of
        sql/functions (an index, a trigger) goes the second way.
      refused: that a right is missing is how the test fails. Otherwise that would prove nothing, either: the bridge's
        owner is an ordinary role, and a rule's replacement may need a right that only a superuser has.
    """

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(bridge: Bridge, **fixtures: object) -> None:
            if not bridge.taken:
                test(bridge, **fixtures)
                return
            try:
                test(bridge, **fixtures)
            except _NONSENSE:
                raise
            except (AssertionError, psycopg2.Error, BridgeError, ValueError, pytest.fail.Exception) as error:
                unpacking = "values to unpack" in str(error)  # [turn] = bridge.turns(match) asserts that there is one
                lacks = isinstance(error, psycopg2.errors.InsufficientPrivilege) or _REFUSED_STATE in str(error)
                if _NONSENSE_STATES.search(str(error)) or (isinstance(error, ValueError) and not unpacking):
                    raise
                if lacks is not refused:
                    raise
                logger.info("without the rule: %s", str(error).partition("\n")[0])
                return
            pytest.fail("the test passes without the rule, so it does not test it")

        mark = pytest.mark.parametrize("bridge", [(), taken], ids=["intact", "without"], indirect=True)
        marked: Callable[..., None] = mark(run)
        return marked

    return decorate


class Claim(NamedTuple):
    """A turn in a worker's hands."""

    turn: int
    token: UUID
    outcome: Outcome


class Running(Generic[T]):
    """A call in a thread of its own, on a connection whose backend is known."""

    def __init__(self, call: Callable[[], T], pid: int, watch: AppConnection) -> None:
        """Start it; `watch` is a connection to look from."""
        self.pid = pid
        self._watch = watch
        self._future: Future[T] = Future()
        self._thread = Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], T]) -> None:
        try:
            self._future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - whatever it is, `result` raises it
            self._future.set_exception(error)

    @property
    def done(self) -> bool:
        """Whether the call has returned or raised."""
        return self._future.done()

    def settle(self) -> bool:
        """Return once the call waits for a lock or has ended; whether it waits."""

        def check() -> None:
            if not self.done:
                wait_for_lock_wait(self._watch, self.pid, timeout=0)

        eventually(check)
        return not self.done

    def until_waiting(self) -> None:
        """Return once the call waits for a lock; fail at once if it ends instead."""
        assert self.settle(), f"it did not wait, but gave {self._future.exception() or self._future.result()!r}"

    def result_at_once(self) -> T:
        """As `result`; fail as soon as the call waits for a lock."""
        assert not self.settle(), "it waits for a lock"
        return self.result()

    def result(self, timeout: float = 10.0) -> T:
        """Return what the call returned, or raise what it raised; fail if it has not ended after `timeout` seconds."""
        try:
            return self._future.result(timeout)
        except TimeoutError:
            pytest.fail(f"the call did not end within {timeout:g} s")


class Bell:
    """What is notified on the bridge's channels."""

    def __init__(self, connection: AppConnection, ringer: AppConnection) -> None:
        """Listen on a connection of its own; `ringer` is any other in autocommit mode."""
        self._connection = connection
        self._ringer = ringer
        with connection.cursor() as cursor:
            cursor.execute("LISTEN bot_events; LISTEN new_match; LISTEN bridge_due; LISTEN bridge_test")

    def heard(self) -> list[tuple[str, str]]:
        """Return (channel, payload) of every notification committed since the last call, in order."""
        end = str(uuid4())
        with self._ringer.cursor() as cursor:
            cursor.execute("SELECT pg_notify('bridge_test', %s)", (end,))

        def check() -> bool:
            self._connection.poll()
            return any(notification.payload == end for notification in self._connection.notifies)

        eventually(check)
        heard = [(n.channel, n.payload) for n in self._connection.notifies if n.channel != "bridge_test"]
        self._connection.notifies.clear()
        return heard


class Bridge:
    """A database with the app's tables, the bridge and a clock to move, and hands to play every part with.

    Step by step: `match` and `write` are the app's; `group` and `push` the scheduler's; `claim`, `finish` and `deliver`
    the worker's. `pushed`, `claimed` and `typing` bring a conversation to that point.

    The functions' lock timeout of 300 ms is 10 s here, so that a slow machine does not decide a race: `impatient`
    brings the real one back.
    """

    def __init__(self, urls: Urls, taken: tuple[Taken, ...] = ()) -> None:
        """Take the rules out, if any. `close` closes whatever was opened."""
        self.urls = urls
        self.taken = taken
        self._open = ExitStack()
        lay_without(urls.admin, taken)
        self.admin = self.connect(ADMIN)
        self.people = self.connect()
        self._database = self._pool()
        self.store = Store(self._database)
        set_grouping(urls, GROUPING_DELAY, opener=INITIATION_DELAY)
        # A deadlock is found at once, and reported as one.
        self.rows(
            self.value("SELECT format('ALTER DATABASE %I SET deadlock_timeout = %L', current_database(), '100ms')")
        )
        self._set_lock_timeout("10s")

    def close(self) -> None:
        """Close every connection that was opened through this object."""
        # psycopg2 waits for a running call before it closes its connection, and that call may wait for another of ours.
        self.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        self._open.close()

    # Connections

    def connect(self, role: str = APP) -> AppConnection:
        """Return a new connection in autocommit mode: the app's, unless another role is named, as SERVICE or ADMIN."""
        connection = self.session(role)
        connection.autocommit = True
        return connection

    def session(self, role: str = APP, *, isolation: str | None = None) -> AppConnection:
        """As `connect`, but in a transaction from its first statement to `commit()` or `rollback()`.

        Parameters:
          isolation: such as "REPEATABLE READ".
        """
        connection: AppConnection = psycopg2.connect(self.urls.of(role))
        self._open.enter_context(closing(connection))
        if isolation:
            connection.set_session(isolation_level=isolation)
        return connection

    def another_store(self) -> Store:
        """Return the steps on connections of their own."""
        return Store(self._pool())

    def _pool(self) -> Database:
        def connect() -> Connection:
            return self._open.enter_context(closing(Connection(self.urls.service, application="test")))

        return Database(connect)

    def step(self, statement: str, *parameters: object) -> list[Row]:
        """Call a step by its SQL, as the service does, and return its rows."""
        return self._database.call(statement, *parameters)

    def run(self, call: Callable[[Store], T]) -> Running[T]:
        """Run a step in a thread: `bridge.run(lambda store: store.claim(turn, token))`."""
        connection = Connection(self.urls.service, application="test in background")
        self._open.callback(connection.close)

        def once() -> Connection:
            assert not connection.closed, "the connection was lost"
            return connection

        store = Store(Database(once))
        return Running(lambda: call(store), connection.raw.get_backend_pid(), self.admin)

    def execute(self, connection: AppConnection, statement: str, *parameters: object) -> Running[None]:
        """Run a statement in a thread, on a connection that is the thread's until the call is done."""

        def call() -> None:
            with connection.cursor() as cursor:
                cursor.execute(statement, parameters or None)

        return Running(call, connection.get_backend_pid(), self.admin)

    def listen(self) -> Bell:
        """Hear what is notified from now on."""
        return Bell(self.connect(), self.admin)

    # Looking

    def rows(
        self, statement: str | Composable, *parameters: object, connection: AppConnection | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows, if it has any: by the superuser's hand, unless a connection is named."""
        with (connection or self.admin).cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def value(self, statement: str, *parameters: object, connection: AppConnection | None = None) -> Any:  # noqa: ANN401
        """Run a statement that gives one row and return its first column."""
        rows = self.rows(statement, *parameters, connection=connection)
        assert len(rows) == 1, f"{len(rows)} rows: {statement}"
        return rows[0][0]

    def turn(self, turn: int) -> Any:  # noqa: ANN401 - a namedtuple of the columns of bridge.turns
        """Return a turn: `.state`, `.due_at`, `.merges` and the other columns."""
        return self._records("SELECT * FROM bridge.turns WHERE id = %s", turn)[0]

    def turns(self, match: str, kind: str = "reply") -> list[Any]:
        """Return the turns of a match, oldest first."""
        return self._records("SELECT * FROM bridge.turns WHERE match_id = %s AND kind = %s ORDER BY id", match, kind)

    def opener(self, match: str) -> Any:  # noqa: ANN401
        """Return the initiation of a match."""
        [turn] = self.turns(match, "initiation")
        return turn

    def covered(self, turn: int) -> list[str]:
        """Return the ids of the messages whose events stand in a turn, in the order of their capture."""
        select = "SELECT message_id FROM bridge.events WHERE turn_id = %s AND kind = 'message' ORDER BY id"
        rows = self.rows(select, turn)
        return [message for (message,) in rows]

    def captured(self, message: str) -> int:
        """Return how many times a message was captured; its changes do not count."""
        count = "SELECT count(*) FROM bridge.events WHERE message_id = %s AND kind = 'message'"
        return int(self.value(count, message))

    def messages(self, match: str) -> list[tuple[str, str]]:
        """Return (sender, content) of every message of a match, oldest first."""
        return self.rows("SELECT sender_id, content FROM messages WHERE match_id = %s ORDER BY created_at", match)

    def _records(self, statement: str, *parameters: object) -> list[Any]:
        cursor: Any = self.admin.cursor(cursor_factory=psycopg2.extras.NamedTupleCursor)
        with cursor:
            cursor.execute(statement, parameters)
            return list(cursor.fetchall())

    # The app

    def match(self, user: str = LEA, bot: str = CAMILLE, *, opener: bool = False) -> str:
        """Make a match and return its id: one from before the installation, or a new one that gets an opener."""
        match = str(uuid4())
        insert = "INSERT INTO matches (id, user1_id, user2_id) VALUES (%s, %s, %s)"
        if opener:
            self.rows(insert, match, user, bot, connection=self.people)
        else:
            self.rows("SET session_replication_role = replica")
            self.rows(insert, match, user, bot)
            self.rows("RESET session_replication_role")
        return match

    def write(
        self, match: str, text: str = "salut", *, sender: str = LEA, connection: AppConnection | None = None
    ) -> str:
        """Insert a message, in autocommit mode unless a connection is named, and return its id."""
        message = str(uuid4())
        self.rows(WRITE, message, match, sender, text, connection=connection or self.people)
        return message

    # The scheduler

    def stop_clock(self) -> None:
        """Let the clock of the bridge move by `advance` only."""
        clock.stop(self.urls)

    def advance(self, seconds: float) -> None:
        """Move the clock of the bridge."""
        clock.advance(self.urls, seconds)

    def group(self, *, after: int = 0, only: str | None = None, probability: float = 1.0) -> list[Grouped]:
        """Group what is ungrouped."""
        with self.policy(initiation_probability=probability):
            return self.store.group(after=after, only=only)

    def push(self, limit: int = 1000) -> list[Push]:
        """Push what is due."""
        return self.store.push_due(limit)

    # The worker

    def claim(self, turn: int, *, plain: bool = True) -> Claim:
        """Claim a turn as a new worker, whose call cannot be ended if it is `plain`."""
        token = uuid4()
        return Claim(turn, token, self.store.claim(turn, token, plain=plain))

    def finish(self, claim: Claim, draft: str = "coucou", *, pause: float = 5.0) -> Outcome:
        """Hand in a draft; one with a pause stays `typing`."""
        return self.store.finish(claim.turn, claim.token, draft, pause=pause)

    def deliver(self, turn: int, *, max_merges: int = MAX_MERGES) -> Outcome:
        """Deliver a draft."""
        with self.policy(max_merges=max_merges):
            return self.store.deliver(turn)

    @contextmanager
    def policy(self, **values: float | str) -> Iterator[None]:
        """Set these columns of policy for all bots, and take that back afterwards."""
        columns = ", ".join(values)
        before = self.rows(f"SELECT {columns} FROM bridge.bots WHERE scope = 'default'")[0]  # noqa: S608 - ours
        if before == tuple(values.values()):
            yield
            return
        set_policy(self.urls, None, **values)
        yield
        set_policy(self.urls, None, **dict(zip(values, before, strict=True)))

    # Short cuts

    def pushed(self, match: str) -> int:
        """Group and push what was written in a match, and return its waiting turn, now `queued`."""
        self.group()
        self.advance(GROUPING_DELAY + 1)
        self.push()
        return int(
            self.value("SELECT id FROM bridge.turns WHERE match_id = %s AND kind = 'reply' AND state = 'queued'", match)
        )

    def claimed(self, match: str, *, plain: bool = True) -> Claim:
        """As `pushed`, and claim the turn: it is `composing`."""
        claim = self.claim(self.pushed(match), plain=plain)
        assert claim.outcome.name == "claimed", claim.outcome
        return claim

    def typing(self, match: str, draft: str = "coucou") -> int:
        """As `claimed`, and hand in a draft whose time has come: a turn that only waits for `deliver`."""
        claim = self.claimed(match)
        assert self.finish(claim, draft).name == "typing"
        self.advance(6)
        return claim.turn

    def typing_opener(self, match: str, draft: str = "bonjour") -> int:
        """Bring the opener of a new match to where it only waits for `deliver`."""
        self.group()
        self.advance(INITIATION_DELAY + 1)
        self.push()
        claim = self.claim(self.opener(match).id)
        assert self.finish(claim, draft).name == "typing"
        self.advance(6)
        return claim.turn

    # The functions' patience

    def impatient(self) -> None:
        """Give the functions the lock timeout that production has."""
        self._set_lock_timeout("300ms")

    def _set_lock_timeout(self, value: str) -> None:
        # Trigger functions have none (0) and keep it (C1).
        changes = self.rows(
            "SELECT format('ALTER FUNCTION %%s SET lock_timeout = %%L', p.oid::regprocedure, %s) FROM pg_proc p"
            " WHERE pronamespace = 'bridge'::regnamespace"
            " AND EXISTS (SELECT FROM unnest(proconfig) c WHERE c ~ '^lock_timeout=.*s$')",
            value,
        )
        self.rows("; ".join(change for (change,) in changes))


WRITE: Final = "INSERT INTO messages (id, match_id, sender_id, content) VALUES (%s, %s, %s, %s)"


def without_them(taken: tuple[Taken, ...]) -> list[str]:
    """Return the statements that lay the functions again, each without what is to be taken out of it.

    Raises:
      LookupError: a text that is to be replaced is not there.
    """
    texts: dict[str, str] = {}
    statements = []
    for name, *change in taken:
        if name == "sql":
            statements += change
            continue
        if name not in texts:
            [file] = SQL_FOLDER.glob(f"**/{name}.sql")
            texts[name] = file.read_text(encoding="utf-8").replace("{app}", "public")
        old, new = change
        pattern = r"\s+".join(re.escape(word) for word in old.split())
        texts[name], found = re.subn(pattern, lambda _, new=new: new, texts[name])  # type: ignore[misc]
        if not found:
            raise LookupError(f"{name}.sql does not contain: {old}")
    return [*texts.values(), *statements]


def lay_without(url: str, taken: tuple[Taken, ...]) -> None:
    """Lay what `without_them` returns in a database."""
    statements = without_them(taken)
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
