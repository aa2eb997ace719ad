-- A conversation's events that nobody has grouped yet, in order of capture.
--
-- Two indexes hold what is ungrouped. Vacuumed while nothing was, both are empty by the statistics, and one is as good as the
-- other to the planner; the one by id reads a whole backlog, for each turn. An order that only the other one gives,
-- of a range that it does not know to be one conversation, leaves it no choice.
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
