-- Redis is back. What was pushed and not taken may be lost, so all of it is due now (T9). A turn that failed is due as
-- soon as it may be tried again.
-- Each index of unfinished turns has a query of its own, because no partial index serves both. Finished turns are never
-- read.
CREATE OR REPLACE FUNCTION bridge.reset_pushes() RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off AS $$
DECLARE
    v_now   timestamptz := bridge.now();
    v_count integer;
BEGIN
    WITH waiting AS (
        SELECT p.id FROM bridge.turns p
        WHERE p.state = 'queued' AND p.pushes > 0 AND p.due_at > v_now
        FOR NO KEY UPDATE SKIP LOCKED),
    active AS (
        SELECT p.id FROM bridge.turns p
        WHERE p.state = 'composing' AND p.token IS NULL AND p.pushes > 0 AND p.due_at > v_now
        FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE bridge.turns t SET due_at = greatest(v_now, t.retry_at), pushes = 0
    FROM (SELECT w.id FROM waiting w UNION ALL SELECT a.id FROM active a) pushed
    WHERE t.id = pushed.id;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;
