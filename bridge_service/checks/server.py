"""Looks at the server: version, rights to write, encryption, clock, connections. Any role may read what they read."""

import time
from typing import Final

from bridge_service.checks.finding import Found, encryption, judge, well, wrong
from bridge_service.checks.look import row
from bridge_service.machine.database import Connection

OLDEST_VERSION: Final = 150000
CLOCK_SECONDS: Final = 5.0


def reachable(connection: Connection) -> Found:
    """Tell as which role PostgreSQL answers."""
    role, superuser = row(
        connection, "SELECT current_user::text, rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"
    )
    detail = f"answers role {role}"
    if superuser:
        advice = (
            "DATABASE_URL: use an ordinary role, with the rights of `python -m bridge_service migrate --runtime-role`"
        )
        return well(f"{detail}, a superuser", advice)
    return well(detail)


def version(connection: Connection) -> Found:
    """Compare PostgreSQL's version with OLDEST_VERSION."""
    statement = "SELECT current_setting('server_version_num')::integer, current_setting('server_version')"
    number, words = row(connection, statement)
    remedy = f"upgrade PostgreSQL to {OLDEST_VERSION // 10000} or newer"
    return judge(f"PostgreSQL {words}", remedy, ok=number >= OLDEST_VERSION)


def encoding(connection: Connection) -> Found:
    """Tell the database's encoding."""
    [encoding] = row(connection, "SELECT current_setting('server_encoding')")
    advice = "restore it into one with ENCODING 'UTF8': it may not hold every text"
    return well(encoding, "" if encoding == "UTF8" else advice)


def writable(connection: Connection) -> Found:
    """Find out whether this session may write: a standby takes no writes, nor does a read-only role."""
    standby, read_only = row(
        connection, "SELECT pg_catalog.pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'"
    )
    if standby:
        remedy = "DATABASE_URL: name the primary (or add target_session_attrs=read-write)"
        return wrong("a standby, which takes no writes", remedy)
    if read_only:
        return wrong("read only by default", "set default_transaction_read_only = off for the role and the database")
    return well("takes writes")


def encrypted(connection: Connection) -> Found:
    """Judge whether this connection is encrypted."""
    info = connection.raw.info
    return encryption(
        info.dsn_parameters.get("hostaddr") or info.host or "/",
        encrypted=bool(info.ssl_in_use),
        verified=info.dsn_parameters.get("sslmode") == "verify-full",
        remedy="DATABASE_URL: add sslmode=verify-full and sslrootcert=/etc/ssl/certs/ca-certificates.crt (or your own)",
    )


def isolation(connection: Connection) -> Found:
    """Look for the isolation level that every step needs."""
    [level] = row(connection, "SELECT current_setting('transaction_isolation')")
    remedy = "ALTER ROLE the role of DATABASE_URL SET default_transaction_isolation = 'read committed'"
    return judge(level, remedy, ok=level == "read committed")


def clock(connection: Connection) -> Found:
    """Compare PostgreSQL's clock with this machine's."""
    before = time.time()
    [there] = row(connection, "SELECT extract(epoch FROM clock_timestamp())::double precision")
    offset = there - (before + time.time()) / 2
    detail = f"PostgreSQL's clock is {offset:+.1f} s from this machine's"
    return judge(detail, "set the clocks by NTP, here and on PostgreSQL's machine", ok=abs(offset) < CLOCK_SECONDS)


def connections(connection: Connection, needed: int) -> Found:
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
    remedy = f"raise max_connections or the role's limit, or start fewer threads: {needed} have to be free"
    return judge(detail, remedy, ok=free >= needed)


def replication_role(connection: Connection) -> Found:
    """Look for a setting that keeps triggers from firing."""
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
        roles = ", ".join(elsewhere) or "this session"
        return wrong(
            f"session_replication_role is replica for {roles}: no trigger fires",
            "ALTER ROLE ... RESET session_replication_role (it is for importing history only)",
        )
    return well("triggers fire")
