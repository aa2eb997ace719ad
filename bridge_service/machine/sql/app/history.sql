-- The messages of a match: those asked for by id (`covered`), and the last `p_lines` others. Oldest first.
--
-- The query leaves the planner no choice that is quadratic in the covered messages: it finds each by id (OFFSET 0 keeps
-- that apart), and hashes them once to leave them out of the others (NOT IN is no join). So a plan may be kept, except
-- one that was made while the tables were small and reads them whole: `enable_seqscan` is off.
--
-- An app with other tables replaces this function; `migrate` leaves a replaced one alone. (Casts as in
-- conversation.sql.)
CREATE OR REPLACE FUNCTION bridge.history(p_match uuid, p_covered uuid[], p_lines integer)
RETURNS TABLE (message_id uuid, sender_id uuid, content text, created_at timestamptz, covered boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT h.id::uuid, h.sender_id::uuid, h.content::text, h.created_at::timestamptz, h.covered
    FROM (
        SELECT m.id, m.sender_id, m.content, m.created_at, true AS covered
        FROM unnest(p_covered) AS c (id)
        CROSS JOIN LATERAL (
            SELECT w.id, w.match_id, w.sender_id, w.content, w.created_at FROM {app}.messages w
            WHERE w.id = c.id OFFSET 0) m
        WHERE m.match_id = p_match
        UNION ALL
        (SELECT m.id, m.sender_id, m.content, m.created_at, false
         FROM {app}.messages m
         WHERE m.match_id = p_match AND m.id NOT IN (SELECT unnest(p_covered))
         ORDER BY m.created_at DESC, m.id
         LIMIT p_lines)
    ) h
    ORDER BY h.created_at, h.id;
END
$$;
