-- Whether another turn of the conversation is active, so that the queued turn `p_turn` has to wait. The step that ends
-- the active turn wakes this one (T7). A step that holds the active turn's lock may be ending it, and may have looked
-- for this turn before the push of this turn was committed. Then this turn is made due again in a second.
-- Internal: the caller holds the lock of the turn `p_turn`.
CREATE OR REPLACE FUNCTION bridge.waits_for_active(p_turn bigint, p_match uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_active bigint := bridge.active_turn(p_match);
BEGIN
    IF v_active IS NULL THEN
        RETURN false;
    END IF;
    PERFORM FROM bridge.turns a
    WHERE a.id = v_active AND (a.state IN ('composing', 'typing')) IS TRUE FOR SHARE SKIP LOCKED;
    IF NOT FOUND THEN
        UPDATE bridge.turns SET due_at = least(due_at, bridge.now() + interval '1 second') WHERE id = p_turn;
        PERFORM bridge.notify('bridge_due');
    END IF;
    RETURN true;
END
$$;
