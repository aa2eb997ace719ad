-- The `change` events of a batch find the turn that covers their message (X1): they open no group and join no other one.
-- No lock of that turn is needed. If the turn makes way in the same instant, its events move to a turn that is claimed
-- later, and that claim reads the changed message anyway.
--
-- The event of a message that was set aside is set aside, too, or it would silence the bell (C4). The event of a message
-- that the bridge does not know any more is deleted.
-- Internal: group_events calls it for the events that it has locked, after it has grouped the messages.
CREATE OR REPLACE FUNCTION bridge.group_changes(p_events bigint[], p_now timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_changes bigint[] := ARRAY(SELECT e.id FROM bridge.events e WHERE e.id = ANY (p_events) AND (e.kind = 'change') IS TRUE);
BEGIN
    UPDATE bridge.events e
    SET grouped_at = p_now,
        turn_id = (SELECT m.turn_id FROM bridge.events m WHERE m.kind = 'message' AND m.message_id = e.message_id)
    WHERE e.id = ANY (v_changes)
      AND (SELECT m.turn_id FROM bridge.events m WHERE m.kind = 'message' AND m.message_id = e.message_id) IS NOT NULL;
    UPDATE bridge.events e
    SET error = 'its message was set aside'
    WHERE e.id = ANY (v_changes) AND (e.turn_id IS NULL) IS TRUE
      AND (SELECT m.error FROM bridge.events m WHERE m.kind = 'message' AND m.message_id = e.message_id) IS NOT NULL;
    DELETE FROM bridge.events e
    WHERE e.id = ANY (v_changes) AND (e.turn_id IS NULL) IS TRUE
      AND (SELECT m.id FROM bridge.events m WHERE m.kind = 'message' AND m.message_id = e.message_id) IS NULL;
END
$$;
