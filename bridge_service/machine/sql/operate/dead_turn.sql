-- One turn, dead or not, for `dead show`; NULL if there is none.
CREATE OR REPLACE FUNCTION bridge.dead_turn(p_turn bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT bridge.turn_story(p_turn)
$$;
