"""What is looked at in PostgreSQL. It reads catalogs, which any role may, and calls functions of schema bridge."""

import secrets
import select
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Final, NamedTuple

from bridge_service import migrate, proof
from bridge_service.checks.finding import TIMEOUT_SECONDS, Finding, encryption
from bridge_service.database import Connection
from bridge_service.errors import BridgeError, DatabaseRefused, SchemaIncomplete, SchemaMissing
from bridge_service.heartbeat import SILENCE_SECONDS, count_alive
from bridge_service.ledger import Ledger

OLDEST_VERSION: Final = 150000
LISTEN_SECONDS: Final = 2.0
CLOCK_SECONDS: Final = 5.0

RESTART_SECONDS: Final = 15.0
"""How long people may wait for a process that a deployment is about to start again."""

CONNECTIONS_NEEDED: Final = 12
"""A scheduler's and a worker's with eight threads, and a few to look with."""

BELL_STOPS_AT: Final = 0.5
"""Share of the notification queue above which sql/functions/notify.sql stays silent."""

_MIGRATE: Final = "run `python -m bridge_service migrate`"
_VALIDATE: Final = "run `python -m bridge_service validate`, which finds out"
_MIGRATE_FOR: Final = f"{_MIGRATE} as the schema's owner, with --runtime-role {{}}"
# A role that may call nothing is more often the wrong one, such as a reader, than one that was forgotten.
_ANOTHER_ROLE: Final = f"DATABASE_URL: name the run-time role, or {_MIGRATE_FOR}"
_REPLAY: Final = "`replay --since` that moment for what was missed"

_WORK: Final = {"scheduler": "`python -m schedulers`", "worker": "`dramatiq bridge_service --processes 2 --threads 8`"}

_OWNER_NEEDS: Final = (
    ("conversation", "SELECT", "profiles"),
    ("conversation", "SELECT", "matches"),
    ("history", "SELECT", "messages"),
    ("deliver", "INSERT", "messages"),
)
"""What each function of the adapter does to which of the app's tables, with its owner's rights."""

_LOOK_AT: Final = {table: {name for name, _, on in _OWNER_NEEDS if on == table} for _, _, table in _OWNER_NEEDS}
"""The app's tables, and the functions of the adapter by which the bridge sees their rows and writes its own."""


class _Look(NamedTuple):
    name: str
    find: Callable[[Connection], Finding]
    remedy: str
    """If it could not be looked at."""


def check_postgresql(
    url: str,
    *,
    describe: Callable[[BaseException], str],
    wanted: Callable[[str], bool] = lambda _: True,
    connections: int = CONNECTIONS_NEEDED,
    grouping_delay: float | None = None,
) -> Iterator[Finding]:
    """Look at one thing after the other; only at the first if PostgreSQL does not answer.

    Parameters:
      describe: says what went wrong, without a secret.
      wanted: chooses the looks by their names.
      connections: how many more have to be free.
      grouping_delay: in seconds, to tell whether somebody waits for a process that is missing; None: do not look.
    """
    try:
        connection = _connect(url)
    except BridgeError as error:
        remedy = "DATABASE_URL: correct it, or start PostgreSQL and let this machine through"
        yield Finding("postgresql", ok=False, detail=describe(error), remedy=remedy)
        return
    with closing(connection):
        for look in _looks(url, connections, grouping_delay):
            if not wanted(look.name):
                continue
            try:
                yield look.find(connection)
            except BridgeError as error:
                yield Finding(look.name, ok=False, detail=describe(error), remedy=look.remedy)
                if connection.closed:
                    return


def _connect(url: str) -> Connection:
    return Connection(url, application="bridge check", seconds=TIMEOUT_SECONDS)


def _row(connection: Connection, statement: str, *parameters: object) -> tuple[Any, ...]:
    [row] = connection.execute(statement, parameters, seconds=TIMEOUT_SECONDS)
    return row


# --- The server ----------------------------------------------------------------------------------


def _reachable(connection: Connection) -> Finding:
    role, superuser = _row(
        connection, "SELECT current_user::text, rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"
    )
    detail = f"answers role {role}"
    if superuser:
        remedy = "DATABASE_URL: use a role of its own, made fit by `python -m bridge_service migrate --runtime-role`"
        return Finding("postgresql", ok=True, detail=f"{detail}, a superuser", remedy=remedy)
    return Finding("postgresql", ok=True, detail=detail)


def _version(connection: Connection) -> Finding:
    statement = "SELECT current_setting('server_version_num')::integer, current_setting('server_version')"
    number, words = _row(connection, statement)
    ok = number >= OLDEST_VERSION
    remedy = "" if ok else f"upgrade PostgreSQL to {OLDEST_VERSION // 10000} or newer"
    return Finding("postgresql_version", ok=ok, detail=f"PostgreSQL {words}", remedy=remedy)


def _encoding(connection: Connection) -> Finding:
    [encoding] = _row(connection, "SELECT current_setting('server_encoding')")
    remedy = "" if encoding == "UTF8" else "restore it into one with ENCODING 'UTF8': it may not hold every text"
    return Finding("postgresql_encoding", ok=True, detail=encoding, remedy=remedy)


def _writable(connection: Connection) -> Finding:
    standby, read_only = _row(
        connection, "SELECT pg_catalog.pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'"
    )
    if standby:
        remedy = "DATABASE_URL: name the primary (or add target_session_attrs=read-write)"
        return Finding("postgresql_writable", ok=False, detail="a standby, which takes no writes", remedy=remedy)
    if read_only:
        remedy = "set default_transaction_read_only = off for the role and the database"
        return Finding("postgresql_writable", ok=False, detail="read only by default", remedy=remedy)
    return Finding("postgresql_writable", ok=True, detail="takes writes")


def _encrypted(connection: Connection) -> Finding:
    info = connection.raw.info
    return encryption(
        "postgresql_encryption",
        info.dsn_parameters.get("hostaddr") or info.host or "/",
        encrypted=bool(info.ssl_in_use),
        verified=info.dsn_parameters.get("sslmode") == "verify-full",
        remedy="DATABASE_URL: add sslmode=verify-full and sslrootcert=/etc/ssl/certs/ca-certificates.crt (or your own)",
    )


def _isolation(connection: Connection) -> Finding:
    [level] = _row(connection, "SELECT current_setting('transaction_isolation')")
    ok = level == "read committed"
    remedy = "" if ok else "ALTER ROLE the role of DATABASE_URL SET default_transaction_isolation = 'read committed'"
    return Finding("postgresql_isolation", ok=ok, detail=level, remedy=remedy)


def _clock(connection: Connection) -> Finding:
    before = time.time()
    [there] = _row(connection, "SELECT extract(epoch FROM clock_timestamp())::double precision")
    offset = there - (before + time.time()) / 2
    ok = abs(offset) < CLOCK_SECONDS
    remedy = "" if ok else "set the clocks by NTP, here and on PostgreSQL's machine"
    return Finding("clock", ok=ok, detail=f"PostgreSQL's clock is {offset:+.1f} s from this machine's", remedy=remedy)


def _connections(connection: Connection, needed: int) -> Finding:
    limit, used, own_limit, own_used = _row(
        connection,
        """
        SELECT current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
                   - coalesce(current_setting('reserved_connections', true)::integer, 0),
               (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE usename IS NOT NULL),
               r.rolconnlimit,
               (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE usename = current_user)
        FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
        """,
    )
    free = limit - used
    detail = f"{used} of {limit} in use"
    if own_limit >= 0:
        free = min(free, own_limit - own_used)
        detail += f", {own_used} of the role's {own_limit}"
    ok = free >= needed
    remedy = (
        "" if ok else f"raise max_connections or the role's limit, or start fewer threads: {needed} have to be free"
    )
    return Finding("connections", ok=ok, detail=detail, remedy=remedy)


# --- Notifications -------------------------------------------------------------------------------


def _listen(connection: Connection, url: str) -> Finding:
    channel = f"bridge_check_{secrets.token_hex(8)}"
    connection.execute(f"LISTEN {channel}", seconds=TIMEOUT_SECONDS)
    began = time.monotonic()
    # From another connection: a pooler would hand the notification over with the answer to whoever made it.
    with closing(_connect(url)) as other:
        _row(other, "SELECT pg_catalog.pg_notify(%s, '')", channel)
    heard = _hears(connection, channel, began + LISTEN_SECONDS)
    if heard:
        connection.execute(f"UNLISTEN {channel}", seconds=TIMEOUT_SECONDS)
        took = (time.monotonic() - began) * 1000
        return Finding("listen", ok=True, detail=f"a notification came back in {took:.0f} ms")
    remedy = (
        "DATABASE_URL: is it a pooler in transaction mode? use its session mode or the direct port;"
        " the bridge polls meanwhile"
    )
    return Finding("listen", ok=False, detail=f"no notification came back within {LISTEN_SECONDS:g} s", remedy=remedy)


def _hears(connection: Connection, channel: str, deadline: float) -> bool:
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    while True:
        connection.receive()
        if any(notify.channel == channel for notify in connection.raw.notifies):
            return True
        left = deadline - time.monotonic()
        if left <= 0 or not poller.poll(left * 1000):
            return False


def _notify_queue(connection: Connection) -> Finding:
    [usage] = _row(connection, "SELECT pg_catalog.pg_notification_queue_usage()")
    ok = usage < BELL_STOPS_AT
    cause = "end the session that LISTENs and stays in a transaction: the oldest xact_start of pg_stat_activity"
    return Finding("notify_queue", ok=ok, detail=f"{usage:.0%} full", remedy="" if ok else cause)


# --- The processes -------------------------------------------------------------------------------


def _processes(connection: Connection, grouping_delay: float) -> Finding:
    """Look for a scheduler and a worker: their absence is well until somebody waits for them."""
    ledger = Ledger(connection, seconds=TIMEOUT_SECONDS)
    try:
        alive = count_alive(ledger.processes(SILENCE_SECONDS, SILENCE_SECONDS))
        status = ledger.status(grouping_delay)
    except (SchemaMissing, DatabaseRefused):
        return Finding("processes", ok=True, detail="not known while the schema or a right is missing")
    detail = "alive: " + ", ".join(f"{role}s {number}" for role, number in alive.items())
    absent = [role for role, number in alive.items() if not number]
    # Without a worker nothing is overdue for long: the scheduler pushes what is queued again, and again in vain.
    waiting = status.overdue if alive["worker"] else max(status.overdue, status.queued)
    missed = absent and waiting and status.oldest_unanswered_seconds > grouping_delay + RESTART_SECONDS
    if missed:
        detail += f"; turns that wait: {waiting}"
    remedy = " and ".join(f"start a {role}: {_WORK[role]}" for role in absent)
    return Finding("processes", ok=not missed, detail=detail, remedy=remedy)


# --- The schema and the app's tables -------------------------------------------------------------


def _schema(connection: Connection) -> Finding:
    [there] = _row(connection, "SELECT pg_catalog.to_regnamespace('bridge') IS NOT NULL")
    if not there:
        return Finding("schema", ok=False, detail="schema bridge is not there", remedy=_MIGRATE)
    try:
        ledger = Ledger(connection, seconds=TIMEOUT_SECONDS)
        ledger.assert_complete()
        installed = ledger.installed()
    except (SchemaMissing, DatabaseRefused) as error:
        closed = isinstance(error, DatabaseRefused)
        detail = "schema bridge is closed to this role" if closed else "schema bridge is older than this code"
        if isinstance(error, SchemaIncomplete):
            detail = f"schema bridge is incomplete: {error}"
        remedy = _ANOTHER_ROLE.format("this role") if closed else _MIGRATE
        return Finding("schema", ok=False, detail=detail, remedy=remedy)
    detail = f"migration {installed.migration}"
    newest = migrate.newest_migration()
    if installed.migration > newest:
        detail += f", newer than this code's {newest}"
        return Finding("schema", ok=True, detail=detail, remedy="deploy the newer code here, too")
    expected = migrate.digests(_app_schema(connection))
    old = sorted(name for name in expected if installed.digests.get(name) != expected[name])
    app = migrate.adapter()
    changed = [name for name in installed.changed if name not in app]
    replaced = [name for name in installed.changed if name in app]
    # An adapter function that the app replaced stays as it is, whatever becomes of our file.
    old = [name for name in old if name not in replaced]
    if installed.migration < newest or old:
        detail += f" of {newest}, functions to lay anew: {', '.join(old) or 'none'}"
        return Finding("schema", ok=False, detail=detail, remedy=_MIGRATE)
    if changed:
        detail += f", functions changed by hand: {', '.join(changed)}"
        return Finding("schema", ok=False, detail=detail, remedy=f"{_MIGRATE}, which lays them as they were")
    if replaced:
        detail += f", replaced by the app: {', '.join(replaced)}"
    return Finding("schema", ok=True, detail=detail)


def _rights(connection: Connection) -> Finding:
    role, usage, missing = _row(
        connection,
        """
        SELECT current_user::text, has_schema_privilege(n.oid, 'USAGE'),
               ARRAY(SELECT p.proname::text FROM pg_catalog.pg_proc p
                     WHERE p.pronamespace = n.oid AND p.proname = ANY (%s)
                       AND NOT has_function_privilege(p.oid, 'EXECUTE')
                     ORDER BY p.proname)
        FROM (SELECT pg_catalog.to_regnamespace('bridge') AS oid) n
        """,
        migrate.steps(),
    )
    if usage is None:
        return Finding("rights", ok=False, detail="there is no schema to have rights on", remedy=_MIGRATE)
    if usage and not missing:
        return _owner_rights(connection) or Finding("rights", ok=True, detail=f"role {role} may call every step")
    detail = f"role {role} may not call {', '.join(missing)}" if usage else f"role {role} may not enter schema bridge"
    remedy = _MIGRATE_FOR if usage and len(missing) < len(migrate.steps()) else _ANOTHER_ROLE
    return Finding("rights", ok=False, detail=detail, remedy=remedy.format(role))


def _owner_rights(connection: Connection) -> Finding | None:
    """Find out what the owner of the adapter's functions may not do to the app's tables; None if all is well.

    Where the app looks and writes by functions of its own, it may do so elsewhere.
    """
    replaced = list(Ledger(connection, seconds=TIMEOUT_SECONDS).installed().changed)
    rows = connection.execute(
        """
        SELECT pg_catalog.pg_get_userbyid(p.proowner)::text, need.privilege, c.oid::regclass::text
        FROM unnest(%s::text[], %s::text[], %s::text[]) AS need (function, privilege, relation)
        JOIN pg_catalog.pg_proc p ON p.pronamespace = pg_catalog.to_regnamespace('bridge') AND p.proname = need.function
        JOIN pg_catalog.pg_class c ON c.relname = need.relation
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND quote_ident(n.nspname) = %s
        WHERE need.function <> ALL (%s) AND NOT has_any_column_privilege(p.proowner, c.oid, need.privilege)
        """,
        (*map(list, zip(*_OWNER_NEEDS, strict=True)), _app_schema(connection), replaced),
        seconds=TIMEOUT_SECONDS,
    )
    if not rows:
        return None
    owner = rows[0][0]
    lacking = ", ".join(f"{privilege} on {table}" for _, privilege, table in rows)
    detail = f"role {owner}, as whom the bridge looks and writes, lacks {lacking}"
    grants = "; ".join(f"GRANT {privilege} ON {table} TO {owner}" for _, privilege, table in rows)
    return Finding("rights", ok=False, detail=detail, remedy=f"as the tables' owner: {grants}")


def _app_tables(connection: Connection) -> Finding:
    schema = _app_schema(connection)
    faults = []
    for table, columns in migrate.APP_TABLES.items():
        [found] = _row(
            connection,
            """
            SELECT array_agg(a.attname::text)
            FROM pg_catalog.pg_attribute a
            JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relname = %s AND quote_ident(n.nspname) = %s AND a.attnum > 0 AND NOT a.attisdropped
            """,
            table,
            schema,
        )
        if found is None:
            faults.append(f"no table {table}")
        elif missing := [column for column in columns if column not in found]:
            faults.append(f"{table} has no column {', '.join(missing)}")
    if faults:
        remedy = "create them, or add their schema to the search_path of DATABASE_URL's role"
        return Finding("app_tables", ok=False, detail="; ".join(faults), remedy=remedy)
    return _unfit_columns(connection, schema) or Finding(
        "app_tables", ok=True, detail=f"{', '.join(migrate.APP_TABLES)} in schema {schema}"
    )


def _unfit_columns(connection: Connection, schema: str) -> Finding | None:
    """Find the columns whose types the bridge cannot use; None if there are none.

    A type that was changed after `migrate` makes the triggers fail, and with them every INSERT of the app.
    """
    try:
        replaced = Ledger(connection, seconds=TIMEOUT_SECONDS).installed().changed
    except (SchemaMissing, DatabaseRefused):
        replaced = ()
    tables = {table: f"{schema}.{table}" for table in migrate.APP_TABLES}
    rows = connection.execute(proof.UNFIT_COLUMNS, proof.needs(tables, replaced), seconds=TIMEOUT_SECONDS)
    if not rows:
        return None
    detail = "; ".join(fault for fault, _, _ in rows)
    statements = _off_and_on(connection)
    if not statements:
        remedy = "give each column the type that is needed, then " + _MIGRATE
        return Finding("app_tables", ok=False, detail=detail, remedy=remedy)
    off, on = statements
    remedy = (
        f"the app's INSERTs may fail now: {off} lets them through, and so does `uninstall`;"
        f" then give each column the type that is needed, {on}, and {_REPLAY}"
    )
    return Finding("app_tables", ok=False, detail=detail, remedy=remedy)


def _off_and_on(connection: Connection) -> tuple[str, str] | None:
    """Return statements that disable and enable the triggers that fire now; None if there are none."""
    [off, on] = _row(
        connection,
        """
        SELECT string_agg(replace(statement, '{}', 'DISABLE'), '; ' ORDER BY statement),
               string_agg(replace(statement, '{}', 'ENABLE'), '; ' ORDER BY statement)
        FROM (SELECT 'ALTER TABLE ' || tgrelid::regclass || ' '
                     || string_agg('{} TRIGGER ' || quote_ident(tgname), ', ' ORDER BY tgname)
              FROM pg_catalog.pg_trigger
              WHERE tgname = ANY (%s) AND tgenabled IN ('O', 'A') AND tgparentid = 0
              GROUP BY tgrelid) AS t (statement)
        """,
        list(migrate.TRIGGERS),
    )
    return None if off is None else (str(off), str(on))


def _app_schema(connection: Connection) -> str:
    """Quoted name of the schema with the app's tables: where the triggers are, else where the search path leads."""
    [schema] = _row(
        connection,
        """
        SELECT coalesce(
            (SELECT quote_ident(n.nspname) FROM pg_catalog.pg_trigger t
             JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE t.tgname = 'bridge_after_message' AND t.tgparentid = 0 LIMIT 1),
            (SELECT quote_ident(n.nspname) FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = pg_catalog.to_regclass('messages')),
            'public')
        """,
    )
    return str(schema)


def _row_security(connection: Connection) -> Finding:
    ledger = Ledger(connection, seconds=TIMEOUT_SECONDS)
    changed = set(ledger.installed().changed)
    told = ledger.row_security()
    owner = told["owner"]
    # Where the app looks by functions of its own, it may look elsewhere.
    ours = [table for table in told["tables"] if changed.isdisjoint(_LOOK_AT[table["name"]])]
    shut = [table for table in ours if table["rows"] == "none"]
    if shut:
        names = ", ".join(table["name"] for table in shut)
        detail = f"row-level security keeps role {owner}, as whom the bridge looks and writes, from {names}"
        remedy = f"as the tables' owner: {'; '.join(table['policy'] for table in shut)}"
        return Finding("row_security", ok=False, detail=detail, remedy=remedy)
    doubts = []
    if unsure := [table["name"] for table in ours if table["rows"] == "unsure"]:
        doubts.append(f"policies, or a view, decide which rows of {', '.join(unsure)} role {owner} sees")
    if replaced := sorted(changed & set().union(*_LOOK_AT.values())):
        doubts.append(f"the app replaced {', '.join(replaced)}")
    if doubts:
        return Finding("row_security", ok=True, detail=f"cannot tell: {'; '.join(doubts)}", remedy=_VALIDATE)
    return Finding("row_security", ok=True, detail=f"role {owner} sees every row of the app's tables")


def _triggers(connection: Connection) -> Finding:
    rows = connection.execute(
        "SELECT tgname, tgrelid::regclass::text, tgenabled IN ('O', 'A'), tgparentid = 0 FROM pg_catalog.pg_trigger"
        " WHERE tgname = ANY (%s) ORDER BY tgname",
        (list(migrate.TRIGGERS),),
        seconds=TIMEOUT_SECONDS,
    )
    missing = sorted(set(migrate.TRIGGERS) - {name for name, _, _, parent in rows if parent})
    if missing:
        [installed] = _row(connection, "SELECT pg_catalog.to_regnamespace('bridge') IS NOT NULL")
        remedy = f"{_MIGRATE}, then {_REPLAY}" if installed else _MIGRATE
        return Finding("triggers", ok=False, detail=f"missing: {', '.join(missing)}", remedy=remedy)
    asleep = [(name, table) for name, table, enabled, _ in rows if not enabled]
    if asleep:
        detail = f"disabled: {', '.join(f'{name} on {table}' for name, table in asleep)}"
        statements = "; ".join(f"ALTER TABLE {table} ENABLE TRIGGER {name}" for name, table in asleep)
        return Finding("triggers", ok=False, detail=detail, remedy=f"{statements}, then {_REPLAY}")
    return Finding("triggers", ok=True, detail="all in place and enabled")


def _replication_role(connection: Connection) -> Finding:
    here, elsewhere = _row(
        connection,
        """
        SELECT current_setting('session_replication_role') = 'replica',
               ARRAY(SELECT coalesce(r.rolname::text, 'every role')
                     FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
                     WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d
                                                 WHERE d.datname = current_database()))
                       AND 'session_replication_role=replica' = ANY (s.setconfig)
                     ORDER BY 1)
        """,
    )
    if here or elsewhere:
        whose = ", ".join(elsewhere) or "this session"
        remedy = "ALTER ROLE ... RESET session_replication_role (it is for importing history only)"
        detail = f"session_replication_role is replica for {whose}: no trigger fires"
        return Finding("replication_role", ok=False, detail=detail, remedy=remedy)
    return Finding("replication_role", ok=True, detail="triggers fire")


def _looks(url: str, connections: int, grouping_delay: float | None) -> Iterator[_Look]:
    yield from (
        _Look("postgresql", _reachable, "DATABASE_URL"),
        _Look("postgresql_version", _version, "DATABASE_URL"),
        _Look("postgresql_encoding", _encoding, "DATABASE_URL"),
        _Look("postgresql_writable", _writable, "DATABASE_URL"),
        _Look("postgresql_encryption", _encrypted, "DATABASE_URL"),
        _Look("postgresql_isolation", _isolation, "DATABASE_URL"),
        _Look("clock", _clock, "DATABASE_URL"),
        _Look("connections", lambda connection: _connections(connection, connections), "DATABASE_URL"),
        _Look("notify_queue", _notify_queue, "DATABASE_URL"),
        _Look("app_tables", _app_tables, "DATABASE_URL"),
        _Look("schema", _schema, _MIGRATE),
        _Look("rights", _rights, _MIGRATE),
        _Look("row_security", _row_security, _MIGRATE),
        _Look("triggers", _triggers, _MIGRATE),
        _Look("replication_role", _replication_role, "DATABASE_URL"),
        _Look("listen", lambda connection: _listen(connection, url), "DATABASE_URL"),
    )
    if grouping_delay is not None:
        yield _Look("processes", lambda connection: _processes(connection, grouping_delay), "see `schema` and `rights`")
