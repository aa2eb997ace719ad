-- The dead turns above the id `p_after`, in order, for the console's page; see turn_lines.sql.
CREATE OR REPLACE FUNCTION bridge.dead_lines(p_after bigint, p_limit integer) RETURNS SETOF jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT bridge.turn_lines(ARRAY(
        SELECT t.id FROM bridge.turns t WHERE t.state = 'dead' AND t.id > p_after ORDER BY t.id LIMIT p_limit))
$$;
