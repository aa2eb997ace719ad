-- Whether a message that the turn `p_turn` covers was edited or deleted after the claim that read it: a `change` event
-- of it is not among the events `p_covers` of that claim (X1).
--
-- One statement looks at what is grouped and at what is not: between two statements a scheduler could group the event,
-- and neither would see it. It reads the conversation's changes and no message. Every delivery asks, so it sets
-- nothing that its callers have set.
CREATE OR REPLACE FUNCTION bridge.is_changed(p_turn bigint, p_match uuid, p_covers bigint[]) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM bridge.events e
        WHERE e.kind = 'change' AND e.match_id = p_match
          AND CASE WHEN e.turn_id IS NOT NULL THEN e.turn_id = p_turn AND e.id <> ALL (p_covers)
                   ELSE e.error IS NULL AND (SELECT m.turn_id FROM bridge.events m
                                             WHERE m.kind = 'message' AND m.message_id = e.message_id) = p_turn END);
END
$$;
