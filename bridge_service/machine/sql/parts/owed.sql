-- What is owed and no turn will answer: the one rule of `verify` and `replay`. It looks at the messages from people to
-- bots in a span of the app's times, by the app's tables as they are now. Owed is what came after `answered_until`, of
--   a message that no event knows (`event_id` NULL);
--   a message whose turn was cancelled as `gone` while its conversation is there again, unless it is old by now
--   (is_old.sql).
-- Nothing is owed to a message that is deleted or withdrawn, nor in a match that is over.
--
-- p_match NULL: every conversation
CREATE OR REPLACE FUNCTION bridge.owed(p_since timestamptz, p_until timestamptz, p_match uuid)
RETURNS TABLE (
    message_id uuid, match_id uuid, bot_id uuid, sender_id uuid, created_at timestamptz, event_id bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET work_mem = '64MB' AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH missed AS MATERIALIZED (
        SELECT w.message_id, w.match_id, w.bot_id, w.sender_id, w.created_at, e.id AS event_id
        FROM bridge.messages_to_bots(p_since, p_until) w
        LEFT JOIN bridge.events e ON e.kind = 'message' AND e.message_id = w.message_id
        WHERE (p_match IS NULL OR w.match_id = p_match)
          AND (e.id IS NULL OR e.turn_id IN (
              SELECT t.id FROM bridge.turns t
              WHERE bridge.answers(t.kind) AND t.state = 'cancelled' AND t.reason = 'gone'))),
    answered AS MATERIALIZED (
        SELECT a.match_id, a.sender_id, bridge.answered_until(a.match_id, a.sender_id) AS until
        FROM (SELECT DISTINCT m.match_id, m.sender_id FROM missed m) a)
    SELECT m.* FROM missed m JOIN answered a ON a.match_id = m.match_id AND a.sender_id = m.sender_id
    WHERE (m.created_at > a.until) IS NOT FALSE
      AND (m.event_id IS NULL OR NOT bridge.is_old(m.match_id, m.created_at))
      AND bridge.withdrawn(m.message_id) IS NOT TRUE AND bridge.ended(m.match_id) IS NOT TRUE;
END
$$;
