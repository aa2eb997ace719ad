-- The newest turns, for the console's page; see turn_lines.sql.
CREATE OR REPLACE FUNCTION bridge.latest_turns(p_limit integer) RETURNS SETOF jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT bridge.turn_lines(ARRAY(SELECT t.id FROM bridge.turns t ORDER BY t.id DESC LIMIT p_limit))
$$;
