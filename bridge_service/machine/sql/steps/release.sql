-- Gives unfinished turns back at once, when a worker drains: due now, no attempt and no takeover counted. But for those
-- that somebody holds: they are about to end, and no other waits for them.
CREATE OR REPLACE FUNCTION bridge.release(p_turns bigint[], p_tokens uuid[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    v_count integer;
BEGIN
    WITH mine AS (
        SELECT t.id FROM bridge.turns t
        JOIN unnest(p_turns, p_tokens) AS l (turn, token) ON l.turn = t.id AND l.token = t.token
        WHERE t.state = 'composing'
        ORDER BY t.id FOR NO KEY UPDATE OF t SKIP LOCKED)
    UPDATE bridge.turns t SET token = NULL, due_at = bridge.now(), pushes = 0
    FROM mine WHERE t.id = mine.id;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF v_count > 0 THEN
        PERFORM bridge.notify('bridge_due');
    END IF;
    RETURN v_count;
END
$$;
