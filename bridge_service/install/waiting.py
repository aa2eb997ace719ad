"""Tries for a lock on a table that the app works with, and names the holder after the last try.

The app's statements queue behind a lock that waits, so a try lasts 400 ms. PostgreSQL ends an autovacuum only for a
session that has waited for `deadlock_timeout`. So after a try that met autovacuum, another transaction waits that
long. It holds no other lock, so it is part of no deadlock.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import psycopg2
import psycopg2.errors
import tenacity
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class that psycopg2 names as a function

from bridge_service.errors import DatabaseBusy
from bridge_service.install.files import template
from bridge_service.install.transaction import connect

ATTEMPTS: Final = 100

# `deadlock_timeout`, and a second in which the autovacuum worker notices that it has to end.
_PATIENCE: Final = """
    SELECT set_config('lock_timeout', (extract(epoch FROM t.wait) * 1000 + 1000)::bigint::text, true)
    FROM (SELECT current_setting('deadlock_timeout')::interval) AS t (wait)
"""
# In this mode the app reads and writes on, and autovacuum ends. LOCK TABLE asks for one of these rights.
_GENTLY: Final = "LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE"
_RIGHTS: Final = "UPDATE, DELETE, TRUNCATE"
# For a role that may only make triggers. It is rolled back; the app's writers wait meanwhile.
_BY_TRIGGER: Final = (
    "CREATE TRIGGER bridge_waits BEFORE UPDATE ON {} FOR EACH ROW"
    " EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()"
)

_READERS: Final = ("AccessShareLock", "RowShareLock")
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class _Holder:
    transaction: str
    pid: int | None
    oid: int
    table: str
    modes: str
    application: str | None
    role: str | None
    since: datetime | None
    is_autovacuum: bool


class LockTries:
    """The tries of one transaction that needs such a lock.

    Parameters:
      url: the database.
      tables: of the app, as the search path finds them. The look adds the bridge's tables and those with its triggers.
      readers_matter: whether a session that only reads is in the way.
    """

    def __init__(self, url: str, tables: Sequence[str], *, readers_matter: bool = False) -> None:
        self._url = url
        self._tables = list(tables)
        self._harmless = [] if readers_matter else list(_READERS)
        self._seen: dict[str, datetime] = {}
        self._staying: list[_Holder] = []
        self._asked: set[str] = set()

    def attempts(self) -> tenacity.Retrying:
        """Return the tries; the last one raises DatabaseBusy, which names the holder of the lock."""
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_busy),
            wait=tenacity.wait_random(0.1, 0.8),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            before_sleep=self._between,
            retry_error_callback=self._give_up,
        )

    def _between(self, _: tenacity.RetryCallState) -> None:
        self._look()

    def _look(self) -> list[_Holder]:
        """Return the holders of a lock. Ask autovacuum to end if no other session is in the way for long."""
        try:
            with closing(connect(self._url)) as connection:
                return self._look_by(connection)
        except psycopg2.Error:
            return []  # the next try raises if PostgreSQL does not answer

    def _look_by(self, connection: Connection) -> list[_Holder]:
        with connection, connection.cursor() as cursor:
            holders: list[_Holder] = []
            # Readers count only if no other session is found: a migration of the bridge's own tables waits for them.
            for harmless in (self._harmless, []):
                if not holders:
                    cursor.execute(template("holders"), {"tables": self._tables, "harmless": harmless})
                    holders = [_Holder(*row) for row in cursor.fetchall()]
        # The app's own transactions are short. A transaction that a second look finds again is in the way.
        self._staying = [holder for holder in holders if holder.transaction in self._seen]
        now = datetime.now(UTC)
        self._seen = {holder.transaction: self._seen.get(holder.transaction, now) for holder in holders}
        if all(holder.is_autovacuum for holder in self._staying):
            for holder in holders:
                if holder.is_autovacuum and holder.transaction not in self._asked:
                    self._asked.add(holder.transaction)
                    _make_way(connection, holder.oid)
        return holders

    def _give_up(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        holders = self._look()
        holders = self._staying or holders
        if not holders:
            raise error or DatabaseBusy("a table stays locked: run this again")
        named = " and ".join(self._described(holder) for holder in holders[:_NAMED])
        tables = ", ".join(dict.fromkeys(holder.table for holder in holders[:_NAMED]))
        remedy = "wait until it is done, or end it, then run this again; nothing was changed"
        raise DatabaseBusy(f"{tables} stays locked by {named}: {remedy}") from error

    def _described(self, holder: _Holder) -> str:
        if holder.pid is None:
            return f"a prepared transaction (pg_prepared_xacts names it; {holder.modes})"
        since = holder.since or self._seen.get(holder.transaction, datetime.now(UTC))
        when = f"{since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        if holder.is_autovacuum:
            return (
                f"autovacuum's worker {holder.pid} (since {when}), which does not give way: it may prevent the"
                " wraparound of transaction ids (pg_stat_progress_vacuum shows how far it is)"
            )
        application = holder.application or "without a name"
        seen = "in a transaction since" if holder.since else "seen since"
        return (
            f"process {holder.pid} (application {application}, role {holder.role}, {seen} {when}, {holder.modes};"
            f" SELECT pg_terminate_backend({holder.pid}) ends it)"
        )


def _make_way(connection: Connection, oid: int) -> None:
    """Wait for a lock on a table until autovacuum ends, and release it at once."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(_PATIENCE)
            cursor.execute("SELECT %s::regclass::text, has_table_privilege(%s::oid, %s)", (oid, oid, _RIGHTS))
            [[table, gently]] = cursor.fetchall()
            cursor.execute(sql.SQL(_GENTLY if gently else _BY_TRIGGER).format(sql.SQL(table)))
    except (psycopg2.errors.LockNotAvailable, psycopg2.errors.InsufficientPrivilege):
        pass  # autovacuum stays, or the role may not lock the table: the tries go on
    finally:
        if not connection.closed:
            connection.rollback()


def _is_busy(error: BaseException) -> bool:
    return isinstance(error.__cause__, psycopg2.errors.LockNotAvailable | psycopg2.errors.DeadlockDetected)
