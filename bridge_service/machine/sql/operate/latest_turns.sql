-- The newest turns, for the console's page; see turn_line.sql.
CREATE OR REPLACE FUNCTION bridge.latest_turns(p_limit integer) RETURNS SETOF jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT bridge.turn_line(l.id) FROM (SELECT t.id FROM bridge.turns t ORDER BY t.id DESC LIMIT p_limit) l ORDER BY l.id DESC
$$;
