-- Gives unfinished turns back when a worker drains: due now, with no attempt and no takeover counted. A turn that
-- another session locks is left out: it is about to end, and the other turns do not wait for it.
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
