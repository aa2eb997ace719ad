-- Makes the event of a match from before the installation, which H2 locks, with an opener that is over: a match of that time
-- gets none. A human's INSERT and a delivery that make it at the same time wait for each other by the unique index.
-- Internal: the caller found no event of this match.
CREATE OR REPLACE FUNCTION bridge.keep_match(p_match uuid, p_bot uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    v_installed timestamptz := (SELECT i.installed_at FROM bridge.installation i);
    v_turn      bigint := nextval(pg_get_serial_sequence('bridge.turns', 'id'));
BEGIN
    -- In one statement, as in capture_match.sql; the event first, because its index decides.
    WITH event AS (
        INSERT INTO bridge.events (kind, match_id, bot_id, turn_id, captured_at, grouped_at)
        VALUES ('match', p_match, p_bot, v_turn, v_installed, v_installed)
        ON CONFLICT (match_id) WHERE kind = 'match' DO NOTHING
        RETURNING turn_id)
    INSERT INTO bridge.turns (id, kind, match_id, bot_id, state, reason, opened_at, ended_at)
    OVERRIDING SYSTEM VALUE
    SELECT e.turn_id, 'initiation', p_match, p_bot, 'cancelled', 'old', v_installed, v_installed FROM event e;
END
$$;
