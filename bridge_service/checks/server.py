"""Looks at the server: version, rights to write, encryption, clock, connections. They read what any role may read."""

import time
from typing import Final

from bridge_service.checks.finding import Finding, encryption
from bridge_service.checks.look import row
from bridge_service.machine.database import Connection

OLDEST_VERSION: Final = 150000
CLOCK_SECONDS: Final = 5.0


def reachable(connection: Connection) -> Finding:
    """Tell as which role PostgreSQL answers."""
    role, superuser = row(
        connection, "SELECT current_user::text, rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"
    )
    detail = f"answers role {role}"
    if superuser:
        remedy = "DATABASE_URL: use a role of its own, made fit by `python -m bridge_service migrate --runtime-role`"
        return Finding("postgresql", ok=True, detail=f"{detail}, a superuser", remedy=remedy)
    return Finding("postgresql", ok=True, detail=detail)


def version(connection: Connection) -> Finding:
    """Compare PostgreSQL's version with the oldest one that the bridge knows."""
    statement = "SELECT current_setting('server_version_num')::integer, current_setting('server_version')"
    number, words = row(connection, statement)
    ok = number >= OLDEST_VERSION
    remedy = "" if ok else f"upgrade PostgreSQL to {OLDEST_VERSION // 10000} or newer"
    return Finding("postgresql_version", ok=ok, detail=f"PostgreSQL {words}", remedy=remedy)


def encoding(connection: Connection) -> Finding:
    """Tell the database's encoding."""
    [encoding] = row(connection, "SELECT current_setting('server_encoding')")
    remedy = "" if encoding == "UTF8" else "restore it into one with ENCODING 'UTF8': it may not hold every text"
    return Finding("postgresql_encoding", ok=True, detail=encoding, remedy=remedy)


def writable(connection: Connection) -> Finding:
    """Tell a standby and a read-only role from what takes writes."""
    standby, read_only = row(
        connection, "SELECT pg_catalog.pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'"
    )
    if standby:
        remedy = "DATABASE_URL: name the primary (or add target_session_attrs=read-write)"
        return Finding("postgresql_writable", ok=False, detail="a standby, which takes no writes", remedy=remedy)
    if read_only:
        remedy = "set default_transaction_read_only = off for the role and the database"
        return Finding("postgresql_writable", ok=False, detail="read only by default", remedy=remedy)
    return Finding("postgresql_writable", ok=True, detail="takes writes")


def encrypted(connection: Connection) -> Finding:
    """Judge whether this connection is encrypted."""
    info = connection.raw.info
    return encryption(
        "postgresql_encryption",
        info.dsn_parameters.get("hostaddr") or info.host or "/",
        encrypted=bool(info.ssl_in_use),
        verified=info.dsn_parameters.get("sslmode") == "verify-full",
        remedy="DATABASE_URL: add sslmode=verify-full and sslrootcert=/etc/ssl/certs/ca-certificates.crt (or your own)",
    )


def isolation(connection: Connection) -> Finding:
    """Look for the isolation level that every step needs."""
    [level] = row(connection, "SELECT current_setting('transaction_isolation')")
    ok = level == "read committed"
    remedy = "" if ok else "ALTER ROLE the role of DATABASE_URL SET default_transaction_isolation = 'read committed'"
    return Finding("postgresql_isolation", ok=ok, detail=level, remedy=remedy)


def clock(connection: Connection) -> Finding:
    """Compare PostgreSQL's clock with this machine's."""
    before = time.time()
    [there] = row(connection, "SELECT extract(epoch FROM clock_timestamp())::double precision")
    offset = there - (before + time.time()) / 2
    ok = abs(offset) < CLOCK_SECONDS
    remedy = "" if ok else "set the clocks by NTP, here and on PostgreSQL's machine"
    return Finding("clock", ok=ok, detail=f"PostgreSQL's clock is {offset:+.1f} s from this machine's", remedy=remedy)


def connections(connection: Connection, needed: int) -> Finding:
    """Count the connections that this role may still open."""
    limit, used, own_limit, own_used = row(
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


def replication_role(connection: Connection) -> Finding:
    """Look for a setting by which no trigger fires."""
    here, elsewhere = row(
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
