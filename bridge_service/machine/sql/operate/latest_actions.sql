-- What was last done on the console, the newest first.
CREATE OR REPLACE FUNCTION bridge.latest_actions(p_limit integer) RETURNS SETOF jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
    SELECT to_jsonb(a) FROM bridge.actions a ORDER BY a.id DESC LIMIT p_limit
$$;
