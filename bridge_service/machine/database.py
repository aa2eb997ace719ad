"""PostgreSQL, one call at a time: every step of the machine is one SQL function in one autocommit transaction.

Connections are psycopg2's asynchronous ones, driven from ordinary threads: that mode is always autocommit, and every
wait ends at a deadline of ours, so a network that swallows packets cannot hold a thread.
"""

import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import psycopg2
import psycopg2.extensions

from bridge_service.errors import (
    DatabaseBusy,
    DatabaseRefused,
    DatabaseUnavailable,
    RightMissing,
    SchemaIncomplete,
    SchemaMissing,
    SequenceBehind,
    StepRefused,
)
from bridge_service.machine import session
from bridge_service.machine.blame import Blame, blame
from bridge_service.machine.places import Places

Row = tuple[Any, ...]

CONNECT_SECONDS: Final = 5.0
CALL_SECONDS: Final = 6.0
"""A call that has not answered by then counts as lost: no step takes a tenth of it."""

_SESSION_OPTIONS: Final = (
    "-c statement_timeout=30000 -c default_transaction_isolation=read\\ committed"
    # Without it, a process that is frozen while PostgreSQL sends it an answer keeps its locks until it wakes.
    " -c tcp_user_timeout=10000"
)
# The same for one call, in one message with it: behind a pooler that takes no session options, each transaction may run
# in another session. The isolation level has to come before any query, and the user's settings before ours.
_CALL_ISOLATION: Final = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; "
_CALL_OPTIONS: Final = "SET LOCAL statement_timeout = 30000; SET LOCAL tcp_user_timeout = 10000; "

_TIMEOUT_SHOWN: Final = "30s"

_NAMES_ONLY: Final = {"aclchk.c", "execMain.c"}
"""Where PostgreSQL denies rights and checks constraints: its words there name only what stands in the schema."""


class Connection:
    """One connection to PostgreSQL whose every wait has a deadline."""

    def __init__(self, url: str, *, application: str, seconds: float = CONNECT_SECONDS) -> None:
        """Connect.

        Parameters:
          url: what libpq takes.
          application: shown in pg_stat_activity.
          seconds: how long connecting may take.

        Raises:
          DatabaseUnavailable: it could not be reached, or did not answer in time.
        """
        self._before_call = b""
        end = time.monotonic() + seconds
        try:
            _, took = session.connect(url, _SESSION_OPTIONS, lambda options: self._open(url, application, end, options))
            if not (took and self._has_options(end)):
                self._before_call = self._call_options(session.user_settings(url))
        except psycopg2.Error as error:
            raise translate(error) from None

    def _open(self, url: str, application: str, end: float, options: str) -> psycopg2.extensions.connection:
        self.raw = psycopg2.connect(
            url,
            async_=1,
            fallback_application_name=application,
            client_encoding="utf8",  # whatever the database says: messages hold any character
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            options=options,
        )
        self.wait(max(0.0, end - time.monotonic()))
        return self.raw

    def _has_options(self, end: float) -> bool:
        """Whether the session has our options: some poolers take them and drop them."""
        asked = "SELECT current_setting('statement_timeout')"
        return self.execute(asked, seconds=max(0.0, end - time.monotonic())) == [(_TIMEOUT_SHOWN,)]

    def _call_options(self, theirs: Sequence[session.Setting]) -> bytes:
        cursor = self.raw.cursor()
        settings = b"".join(cursor.mogrify("SELECT set_config(%s, %s, true); ", setting) for setting in theirs)
        return _CALL_ISOLATION.encode() + settings + _CALL_OPTIONS.encode()

    def wait(self, seconds: float) -> None:
        """Wait until the running operation is done.

        Raises:
          DatabaseUnavailable: it was not done in time; the connection is closed.
          psycopg2.Error: it failed.
        """
        deadline = time.monotonic() + seconds
        poller = select.poll()
        while (state := self.raw.poll()) != psycopg2.extensions.POLL_OK:
            mask = select.POLLOUT if state == psycopg2.extensions.POLL_WRITE else select.POLLIN
            poller.register(self.raw.fileno(), mask)
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                self.close()
                message = f"no answer from PostgreSQL within {seconds:g} s"
                raise DatabaseUnavailable(message)
            poller.unregister(self.raw.fileno())

    def execute(self, statement: str, parameters: Sequence[object] = (), *, seconds: float = CALL_SECONDS) -> list[Row]:
        """Run one statement in a transaction of its own and return its rows.

        Raises:
          DatabaseUnavailable, DatabaseBusy, StepRefused: see `translate`.
        """
        try:
            cursor = self.raw.cursor()
            cursor.execute(self._before_call + cursor.mogrify(statement, parameters or None))
            self.wait(seconds)
            rows = cursor.fetchall() if cursor.description else []
            cursor.close()
        except psycopg2.Error as error:
            raise translate(error) from None
        return rows

    def receive(self) -> None:
        """Take in notifications that have arrived, without waiting; they stand in `raw.notifies`.

        Raises:
          DatabaseUnavailable: the connection is gone.
        """
        try:
            self.raw.poll()
        except psycopg2.Error as error:
            raise translate(error) from None

    @property
    def closed(self) -> bool:
        """Whether the connection is gone, as far as this side knows."""
        return bool(self.raw.closed)

    def fileno(self) -> int:
        """Return the socket, to be waited for together with others."""
        return int(self.raw.fileno())

    def close(self) -> None:
        """Close; twice is harmless."""
        self.raw.close()


def translate(error: psycopg2.Error) -> DatabaseUnavailable | DatabaseBusy | StepRefused:
    """Turn an error of psycopg2 into one that says what to do about it, in one line and without any row's values.

    A function, perhaps one of the app's, may raise any SQLSTATE with words that quote a row. PostgreSQL's own errors
    inside a function quote rows too. Of these only the state is told, and the words stand in `StepRefused.words` alone.
    """
    state = error.pgcode
    text = next(iter((error.diag.message_primary or str(error)).strip().splitlines()), type(error).__name__)
    if state is None:
        return DatabaseUnavailable(text)
    if state[:2] == "22":
        text = text.partition('"')[0].rstrip(": ")  # a data exception quotes the value, so perhaps a message
    words = f"{text} (SQLSTATE {state})"
    if error.diag.context and error.diag.source_file not in _NAMES_ONLY:
        text = f"{type(error).__name__} in a function or trigger"  # psycopg2's name of the state
    return _error(error, state, f"{text} (SQLSTATE {state})", words)


def _error(  # noqa: PLR0911 - one case each
    error: psycopg2.Error, state: str, text: str, words: str
) -> DatabaseUnavailable | DatabaseBusy | StepRefused:
    match blame(state):
        case Blame.BUSY:
            return DatabaseBusy(text)
        case Blame.UNAVAILABLE:
            return DatabaseUnavailable(text)
        case Blame.INCOMPLETE:
            return SchemaIncomplete(words)  # the words of assert_complete.sql, which quote nothing
        case Blame.SCHEMA:
            return SchemaMissing(text, words=words)
        case Blame.ABSENT if "bridge." in words:
            return SchemaMissing(text, words=words)
        case Blame.ABSENT | Blame.RIGHTS | Blame.MISTAKE:
            return RightMissing(text, words=words)
        case Blame.KEY if _is_colliding_id(error):
            return SequenceBehind(
                f"the sequence of bridge.{error.diag.table_name} stands behind the ids in its table:"
                f" run `python -m bridge_service migrate` (SQLSTATE {state})"
            )
        case whose:
            return DatabaseRefused(text, words=words, by_text=whose is Blame.TEXT)


def _is_colliding_id(error: psycopg2.Error) -> bool:
    """Tell whether a table of schema `bridge` held already an id that its sequence gave out.

    No statement of the bridge names an id itself, so a primary key collides only behind its sequence.
    """
    diag = error.diag
    is_key = diag.constraint_name is not None and diag.constraint_name == f"{diag.table_name}_pkey"
    return diag.schema_name == "bridge" and is_key


class Database:
    """A pool that opens a connection when a thread needs one and keeps it for the next; safe from any thread."""

    def __init__(self, connect: Callable[[], Connection], most: int | None = None) -> None:
        """Remember how to connect; nothing is opened before the first call.

        Parameters:
          most: connections at a time; further calls wait. None: as many as there are threads that call.
        """
        self._connect = connect
        self._idle: deque[Connection] = deque()
        self._closed = threading.Event()
        self._places: AbstractContextManager[None] = nullcontext()
        if most is not None:
            self.limit(most)

    def limit(self, most: int) -> None:
        """Open at most so many connections, from before the first call on; then a call waits for its turn."""
        self._places = Places(most, CALL_SECONDS)

    def call(self, statement: str, *parameters: object) -> list[Row]:
        """Call a function of schema `bridge` in one transaction.

        A connection that broke under the call leaves in doubt whether it took effect. Every function gives the same
        answer, or finds nothing to do, when it is called again; so it is, once, on a new connection (D3).

        Raises:
          DatabaseUnavailable: no connection, none became free in time, or it broke twice; run the step again later.
          DatabaseBusy: a lock was not to be had; run the step again soon.
          StepRefused: running it again will not help.
        """
        try:
            return self.call_once(statement, *parameters)
        except DatabaseUnavailable:
            self._drop_idle()  # what broke one connection broke its neighbours
            return self.call_once(statement, *parameters)

    def call_once(self, statement: str, *parameters: object) -> list[Row]:
        """As `call`, without the second call."""
        with self._places:
            return self._call(statement, parameters)

    def _call(self, statement: str, parameters: Sequence[object]) -> list[Row]:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            return connection.execute(statement, parameters)
        finally:
            connection.raw.notifies.clear()  # a pooler hands over what another of its clients LISTENs for
            if connection.closed or self._closed.is_set():
                connection.close()
            else:
                self._idle.append(connection)

    def _drop_idle(self) -> None:
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                return

    def close(self) -> None:
        """Close every idle connection, and each other one as soon as its call returns."""
        self._closed.set()
        self._drop_idle()
