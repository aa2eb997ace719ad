-- Whether a message that the turn `p_turn` covers was edited or deleted after the claim that read it: a `change` event
-- of it is not among the events `p_covers` of that claim (X1).
--
-- One statement looks at what is grouped and at what is not: between two statements a scheduler could group the event,
-- and neither would see it. (The order as in ungrouped_events.sql.)
CREATE OR REPLACE FUNCTION bridge.is_changed(p_turn bigint, p_match uuid, p_covers bigint[]) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_seqscan = off SET jit = off AS $$
BEGIN
    RETURN EXISTS (
            SELECT FROM bridge.events e
            WHERE e.kind = 'change' AND e.turn_id = p_turn AND e.id <> ALL (p_covers) OFFSET 0)
        OR EXISTS (
            SELECT FROM bridge.events e
            WHERE e.match_id BETWEEN p_match AND p_match AND e.turn_id IS NULL AND e.error IS NULL
              AND (e.kind = 'change') IS TRUE
              AND (SELECT m.turn_id FROM bridge.events m
                   WHERE m.kind = 'message' AND m.message_id = e.message_id) = p_turn
            ORDER BY e.match_id, e.id OFFSET 0);
END
$$;
