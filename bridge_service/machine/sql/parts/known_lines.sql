-- Which of a conversation's messages the bridge knows, and since which event. `event_id` is, of a person's message, its own
-- event; of a reply of the bridge (`ours`), the newest event that it covers; of the opener, 0; of a follow-up, that of its
-- reply; of a notice and of the disclosure, the newest event when it was said.
--
-- There is no index of replies. A reply is found only if one of the messages that it covers is among `p_messages`. Each
-- row is found by a unique index, so the cost grows with `p_messages` and not with the history.
CREATE OR REPLACE FUNCTION bridge.known_lines(p_match uuid, p_messages uuid[])
RETURNS TABLE (message_id uuid, event_id bigint, ours boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH heard AS MATERIALIZED (
        SELECT e.message_id, e.id, e.turn_id
        FROM unnest(p_messages) AS m (id)
        CROSS JOIN LATERAL (
            SELECT v.message_id, v.id, v.turn_id FROM bridge.events v
            WHERE v.kind = 'message' AND v.message_id = m.id OFFSET 0) e)
    SELECT h.message_id, h.id, false FROM heard h
    UNION ALL
    SELECT r.message_id, t.covers[cardinality(t.covers)], true
    FROM (SELECT DISTINCT h.turn_id FROM heard h WHERE h.turn_id IS NOT NULL) d
    CROSS JOIN LATERAL (
        SELECT a.id, a.reply_message_id, a.covers, a.state, a.parts FROM bridge.turns a WHERE a.id = d.turn_id OFFSET 0) t
    CROSS JOIN LATERAL (  -- each message of a reply of several, also while the others are to come (P1)
        SELECT t.reply_message_id AS message_id WHERE t.parts IS NULL AND t.state = 'answered'
        UNION ALL
        SELECT p.message_id FROM bridge.parts p
        WHERE t.parts IS NOT NULL AND p.turn_id = t.id AND p.delivered_at IS NOT NULL) r
    WHERE r.message_id IS NOT NULL
    UNION ALL
    SELECT t.reply_message_id, 0::bigint, true FROM bridge.turns t
    WHERE t.match_id = p_match AND t.kind = 'initiation' AND (t.state = 'answered') IS TRUE
      AND t.reply_message_id IS NOT NULL
    UNION ALL
    SELECT f.reply_message_id, coalesce(r.covers[cardinality(r.covers)], 0), true
    FROM bridge.turns f LEFT JOIN bridge.turns r ON r.id = f.follows
    WHERE f.match_id = p_match AND f.kind = 'follow_up' AND (f.state = 'answered') IS TRUE AND f.reply_message_id IS NOT NULL
    UNION ALL
    SELECT n.message_id, n.event_id, true FROM bridge.notices n WHERE n.match_id = p_match
    UNION ALL
    SELECT d.message_id, d.event_id, true FROM bridge.disclosures d WHERE d.match_id = p_match;
END
$$;
