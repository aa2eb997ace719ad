-- Makes the event of a match from before the installation, which F3 locks, with an opener that is over: a match of that time
-- gets none. While a transaction holds the match's advisory lock (H2), the row is not made, and the conversation gets no
-- follow-up this time.
-- Internal: the caller found no event of this match.
CREATE OR REPLACE FUNCTION bridge.keep_match(p_match uuid, p_bot uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off AS $$
DECLARE
    v_installed timestamptz := (SELECT i.installed_at FROM bridge.installation i);
    v_turn      bigint := nextval(pg_get_serial_sequence('bridge.turns', 'id'));
BEGIN
    IF NOT pg_try_advisory_xact_lock(bridge.old_match_key(p_match)) THEN
        RETURN;
    END IF;
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
