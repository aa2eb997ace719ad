-- Marks that the bot left a conversation, and ends what waits in it. What is grouped or claimed after this commits meets the
-- mark (group_events.sql, task.sql).
-- Internal: the caller ends the active turn `p_turn` in the same transaction and holds its lock.
CREATE OR REPLACE FUNCTION bridge.leave(p_turn bigint, p_match uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_waiting bigint;
BEGIN
    INSERT INTO bridge.pauses (match_id, cause, since, turn_id) VALUES (p_match, 'left', bridge.now(), p_turn)
    ON CONFLICT (match_id, cause) DO NOTHING;
    SELECT w.id INTO v_waiting FROM bridge.turns w
    WHERE w.match_id = p_match AND bridge.is_waiting(w.kind, w.state)
    FOR NO KEY UPDATE;
    IF FOUND THEN
        PERFORM bridge.end_turn(v_waiting, 'cancelled', 'left');
    END IF;
END
$$;
