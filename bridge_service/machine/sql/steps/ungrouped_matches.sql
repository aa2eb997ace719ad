-- The conversations that have ungrouped events, oldest first: to find the one that spoils a batch (T2).
CREATE OR REPLACE FUNCTION bridge.ungrouped_matches(p_limit integer) RETURNS uuid[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(
        SELECT e.match_id FROM bridge.events e WHERE e.turn_id IS NULL AND e.error IS NULL
        GROUP BY e.match_id ORDER BY min(e.id) LIMIT p_limit)
$$;
