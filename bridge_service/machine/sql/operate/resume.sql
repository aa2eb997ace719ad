-- Lets the bot answer in a conversation again: deletes its pauses. What was written in a pause is answered now. What was
-- written while the bot had left, or was off, stays without an answer, and so does what a human answered. Returns whether
-- there was a pause.
CREATE OR REPLACE FUNCTION bridge.resume(p_match uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off AS $$
DECLARE
    v_now  timestamptz := bridge.now();
    v_over boolean;
BEGIN
    DELETE FROM bridge.pauses WHERE match_id = p_match;
    v_over := FOUND;
    -- A turn that another session holds is left to plan_held.
    WITH held AS (
        SELECT t.id FROM bridge.turns t
        WHERE t.match_id = p_match AND bridge.is_waiting(t.kind, t.state) AND (t.state = 'open' AND t.held = 'paused') IS TRUE
        FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE bridge.turns t SET due_at = greatest(v_now, t.retry_at), held = NULL, held_until = v_now
    FROM held WHERE t.id = held.id AND bridge.paused_until(p_match, t.bot_id) IS NULL;
    IF FOUND THEN
        PERFORM bridge.notify('bridge_due');
    END IF;
    RETURN v_over;
END
$$;
