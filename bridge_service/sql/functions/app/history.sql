-- The messages of a match: those asked for by id (`covered`), and the last `p_lines` others. Oldest first.
-- An app with other tables replaces this function; `migrate` leaves a replaced one alone.
CREATE OR REPLACE FUNCTION bridge.history(p_match uuid, p_covered uuid[], p_lines integer)
RETURNS TABLE (message_id uuid, sender_id uuid, content text, created_at timestamptz, covered boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT h.id, h.sender_id, h.content, h.created_at, h.covered
    FROM (
        SELECT m.id, m.sender_id, m.content, m.created_at, true AS covered
        FROM {app}.messages m
        WHERE m.match_id = p_match AND m.id = ANY (p_covered)
        UNION ALL
        (SELECT m.id, m.sender_id, m.content, m.created_at, false
         FROM {app}.messages m
         WHERE m.match_id = p_match AND m.id <> ALL (p_covered)
         ORDER BY m.created_at DESC, m.id
         LIMIT p_lines)
    ) h
    ORDER BY h.created_at, h.id
$$;
