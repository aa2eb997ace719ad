-- Redis came back: whatever was pushed and not taken may be lost, so all of it is due now (T9).
CREATE OR REPLACE FUNCTION bridge.reset_pushes() RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    v_now   timestamptz := bridge.now();
    v_count integer;
BEGIN
    UPDATE bridge.turns t SET due_at = v_now, pushes = 0
    WHERE t.id IN (
        SELECT p.id FROM bridge.turns p
        WHERE (p.state IN ('queued', 'typing') OR (p.state = 'composing' AND p.token IS NULL))
          AND p.pushes > 0 AND p.due_at > v_now
        FOR NO KEY UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;
