-- A conversation's ungrouped events, in order of capture.
--
-- Two indexes hold ungrouped events: one by id, one by conversation. If both were empty when PostgreSQL last vacuumed
-- the table, the planner may take either, and by id it reads the whole backlog for each turn. So the query asks for a
-- range of `match_id` in an order that only the second index gives.
CREATE OR REPLACE FUNCTION bridge.ungrouped_events(p_match uuid)
RETURNS TABLE (id bigint, kind text, captured_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT e.id, e.kind, e.captured_at FROM bridge.events e
    WHERE e.match_id BETWEEN p_match AND p_match AND e.turn_id IS NULL AND e.error IS NULL
    ORDER BY e.match_id, e.id;
END
$$;
