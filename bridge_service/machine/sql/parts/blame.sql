-- Whose fault an SQLSTATE is. This is the one list: bridge_service/machine/blame.py reads it from this file, so Python
-- and SQL give the same answer. The first pattern that fits counts.
--
-- busy:        a lock, a deadlock, a serialization failure. The same step succeeds in a moment.
-- unavailable: the connection, the server, its disk or memory, a time limit, a standby. The same step succeeds later.
-- incomplete:  assert_complete found rows missing that `migrate` writes.
-- schema:      the schema is not there.
-- absent:      a function or a table is not there, of schema `bridge` or of the app.
-- rights:      a right, or a foreign server. Every row is refused until an operator mends it.
-- mistake:     a mistake in a function, or a setting. A claim waits until an operator mends it; at a delivery, where the
--              app's triggers may fail for one row alone, it counts as an attempt.
-- key:         a row with this key is there already.
-- text:        what the reply says. Another text may be taken.
-- turn:        this row. Another text would not help.
-- app:         the app's own SQLSTATE, which is none of PostgreSQL's.
CREATE OR REPLACE FUNCTION bridge.blame(p_state text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN p_state ~ '^(40|55P03)' THEN 'busy'
        WHEN p_state ~ '^(08|53|57|58|XX|25006|25P04)' THEN 'unavailable'
        WHEN p_state ~ '^BRG01' THEN 'incomplete'
        WHEN p_state ~ '^3F000' THEN 'schema'
        WHEN p_state ~ '^(42883|42P01)' THEN 'absent'
        WHEN p_state ~ '^(42501|HV)' THEN 'rights'
        WHEN p_state ~ '^(0A|28|42)' THEN 'mistake'
        WHEN p_state ~ '^(23505|23P01)' THEN 'key'
        WHEN p_state ~ '^(22002|22004|22012)' THEN 'turn'  -- a NULL, a division by zero: they do not depend on a text
        WHEN p_state ~ '^(22|23514|54000|P0001|P0004)' THEN 'text'
        WHEN p_state ~ '^(0|2|3|44|54|55|72|F0|P0)' THEN 'turn'
        ELSE 'app' END
$$;
