"""Proves that the bridge can work on the app's tables, before a trigger is laid on them.

A trigger that fails makes every INSERT of the app fail. So `prove` runs what the triggers and the steps run and rolls
each back. It plans `deliver` and does not run it: the app's own triggers may act on an INSERT.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

import psycopg2
import psycopg2.errors
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class that psycopg2 names as a function

from bridge_service.errors import DatabaseBusy, DatabaseUnavailable, TablesUnfit
from bridge_service.machine.database import translate

# A statement that runs for that long is planned, so its types fit. On a large table it would run for minutes.
_ENOUGH: Final = "SET LOCAL statement_timeout = '500ms'"

_FROM_ROW: Final = "SELECT bridge.{} FROM {}"
_CONVERSATION: Final = """
    SELECT c.bot_id, c.bot_name, c.person_id, c.person_name, c.matched_at
    FROM bridge.conversation(%(match)s::uuid) AS c
"""
_CAPTURE: Final = """
    SELECT bridge.capture_message(%(message)s::uuid, %(match)s::uuid, c.person_id, clock_timestamp())
    FROM bridge.conversation(%(match)s::uuid) AS c
"""
_HISTORY: Final = """
    SELECT h.message_id, h.sender_id, h.content, h.created_at, h.covered
    FROM bridge.history(%(match)s::uuid, ARRAY[%(message)s::uuid], 5) AS h
"""
_MESSAGES_TO_BOTS: Final = """
    SELECT w.message_id, w.match_id, w.bot_id, w.sender_id, w.created_at
    FROM bridge.messages_to_bots('-infinity', '-infinity') AS w
"""
_TEXTLESS: Final = "SELECT bridge.textless(ARRAY[%(message)s::uuid])"
_IS_TYPING: Final = """
    SELECT bridge.is_typing(%(match)s::uuid, c.person_id) FROM bridge.conversation(%(match)s::uuid) AS c
"""
_TOLD: Final = """
    SELECT bridge.{}(s.id)
    FROM bridge.conversation(%(match)s::uuid) AS c CROSS JOIN LATERAL (VALUES (c.bot_id), (c.person_id)) AS s (id)
"""
# PREPARE compares types and names and needs no right. `check` tells whether the role may insert.
_INSERT: Final = """
    PREPARE bridge_proof (uuid, uuid, uuid, text, timestamptz) AS
    INSERT INTO {messages} (id, match_id, sender_id, content, created_at) VALUES ($1, $2, $3, $4, $5) RETURNING id;
    DEALLOCATE bridge_proof
"""
_CALL: Final = """
    PREPARE bridge_proof (bigint, uuid, uuid, uuid, text, timestamptz) AS
    SELECT bridge.deliver($1, $2, $3, $4, $5, $6)::uuid;
    DEALLOCATE bridge_proof
"""
_VALIDATE: Final = """
    SET LOCAL check_function_bodies = on;
    SELECT pg_catalog.fmgr_sql_validator(p.oid)
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang AND l.lanname = 'sql'
    WHERE p.pronamespace = 'bridge'::regnamespace AND p.proname = 'deliver'
"""


def prove(cursor: Cursor, tables: Mapping[str, str], replaced: Sequence[str]) -> None:
    """Run a capture and each function of the adapter, and roll each back.

    Raises:
      TablesUnfit: a line for each thing that PostgreSQL refuses.
      psycopg2.Error: the connection is lost, or a table is locked.
    """
    values = {"match": str(_some_match(cursor, tables["matches"])), "message": str(uuid4())}
    faults: dict[str, list[str]] = {}
    # psycopg2 reads a percent sign in a table's name as a parameter unless it is doubled.
    quoted = {table: name.replace("%", "%%") for table, name in tables.items()}
    for function, statement in _runs(quoted, replaced):
        try:
            _tried(cursor, statement, values)
        except psycopg2.Error as error:
            if isinstance(translate(error), (DatabaseUnavailable, DatabaseBusy)):
                raise
            words = f"{error.diag.message_primary} (SQLSTATE {error.pgcode})"
            if isinstance(error, psycopg2.errors.InsufficientPrivilege):
                words += f"; the role that runs this needs SELECT on {', '.join(tables.values())}"
            faults.setdefault(words, []).append(f"bridge.{function}")
    if faults:
        raise TablesUnfit(
            *(
                f"{', '.join(dict.fromkeys(functions))} cannot run on the app's tables: {words}"
                for words, functions in faults.items()
            )
        )


def _some_match(cursor: Cursor, matches: str) -> object:
    """Return the id of a match, or one that no match has."""
    try:
        return (_tried(cursor, f"SELECT id FROM {matches} LIMIT 1") or [uuid4()])[0]  # noqa: S608 - quoted by PostgreSQL
    except psycopg2.errors.InsufficientPrivilege:
        return uuid4()  # functions that the app replaced may look elsewhere


def _tried(cursor: Cursor, statement: str, values: Mapping[str, str] | None = None) -> Sequence[Any]:
    """Run a statement and roll it back; return the first row, if it has any."""
    cursor.execute(f"SAVEPOINT proof; {_ENOUGH}")
    try:
        cursor.execute(statement, values)
        return (cursor.fetchone() or ()) if cursor.description else ()
    except psycopg2.errors.QueryCanceled:
        return ()
    finally:
        if not cursor.connection.closed:
            cursor.execute("ROLLBACK TO SAVEPOINT proof")


def _runs(tables: Mapping[str, str], replaced: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield what is run for each function; `%(match)s` is a match of the app's, if it has any."""
    # A row of NULLs with the types of NEW, as the triggers pass them on.
    message = f"(SELECT (NULL::{tables['messages']}).*) AS r"
    match = f"(SELECT (NULL::{tables['matches']}).*) AS r"
    yield "before_message", f"SELECT FROM bridge.events e, {message} WHERE e.match_id = r.match_id"
    yield "capture_message", _FROM_ROW.format("capture_message(r.id, r.match_id, r.sender_id, r.created_at)", message)
    yield "capture_match", _FROM_ROW.format("capture_match(r.id, r.user1_id, r.user2_id, r.created_at)", match)
    yield "conversation", _CONVERSATION
    yield "capture_message", _CAPTURE
    yield "history", _HISTORY
    yield "messages_to_bots", _MESSAGES_TO_BOTS
    for function, given in (("capture_change", "message"), ("withdrawn", "message"), ("ended", "match")):
        yield function, f"SELECT bridge.{function}(%({given})s::uuid)"
    yield "textless", _TEXTLESS
    yield "is_typing", _IS_TYPING
    for function in ("persona", "profile"):
        yield function, _TOLD.format(function)
    if "deliver" in replaced:
        yield "deliver", _CALL
        yield "deliver", _VALIDATE
    else:
        yield "deliver", _INSERT.replace("{messages}", tables["messages"])
