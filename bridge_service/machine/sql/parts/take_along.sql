-- Lets the turn that is being claimed take the conversation's ungrouped events along, unless a newer turn waits for
-- them: without this a later message could be answered before an earlier one (T4).
-- It does not wait for a scheduler that groups these events, because that scheduler may wait for the claimed turn. If
-- the scheduler holds one of the events, all are left to it, so that no later message is answered first. (IS TRUE as in
-- group_events: by id alone.)
-- Internal: the caller holds the turn's lock.
CREATE OR REPLACE FUNCTION bridge.take_along(p_turn bigint, p_match uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    v_seen   bigint[];
    v_locked bigint[];
    v_messages integer;
BEGIN
    SELECT array_agg(e.id) INTO v_seen
    FROM bridge.ungrouped_events(p_match) e
    WHERE e.kind IN ('message', 'change') AND NOT EXISTS (
          SELECT FROM bridge.turns w
          WHERE w.match_id = p_match AND bridge.is_waiting(w.kind, w.state) AND w.id <> p_turn);
    IF v_seen IS NULL THEN
        RETURN;
    END IF;
    SELECT array_agg(l.id) INTO v_locked
    FROM (SELECT e.id FROM bridge.events e
          WHERE e.id = ANY (v_seen) AND (e.turn_id IS NULL AND e.error IS NULL) IS TRUE
          ORDER BY e.id FOR NO KEY UPDATE SKIP LOCKED) l;
    IF cardinality(v_locked) = cardinality(v_seen) THEN
        UPDATE bridge.events e SET turn_id = p_turn, grouped_at = bridge.now()
        WHERE e.id = ANY (v_locked) AND (e.kind = 'message' AND e.turn_id IS NULL AND e.error IS NULL) IS TRUE;
        GET DIAGNOSTICS v_messages = ROW_COUNT;
        IF v_messages < cardinality(v_locked) THEN  -- the others are changes: this claim reads what they changed (X1)
            PERFORM bridge.group_changes(v_locked, bridge.now());
        END IF;
    END IF;
END
$$;
