-- The messages that a later turn will answer: those of the waiting turn, and those that are not grouped yet. A
-- responder is not told of them as history, or it would read them twice.
-- STABLE: called in the statement that reads the history, it sees the same moment. A message that commits just then is
-- in both or in neither.
CREATE OR REPLACE FUNCTION bridge.later_messages(p_turn bigint, p_match uuid) RETURNS uuid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
BEGIN
    RETURN ARRAY(
        SELECT (SELECT e.message_id FROM bridge.events e WHERE e.id = u.id)
        FROM bridge.ungrouped_events(p_match) u WHERE u.kind = 'message'
        UNION ALL
        SELECT e.message_id
        FROM (SELECT t.id FROM bridge.turns t
              WHERE t.match_id = p_match AND bridge.is_waiting(t.kind, t.state) AND t.id <> p_turn
              OFFSET 0) w
        JOIN bridge.events e ON e.turn_id = w.id
        WHERE (e.kind = 'message') IS TRUE);
END
$$;
