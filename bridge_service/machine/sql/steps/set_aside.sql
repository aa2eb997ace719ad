-- Sets a conversation's ungrouped events aside with the error that grouping them raised. They leave the index of the
-- ungrouped, or they would silence the bell for ever (C4). `verify` counts them.
CREATE OR REPLACE FUNCTION bridge.set_aside(p_match uuid, p_error text) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    v_count integer;
BEGIN
    UPDATE bridge.events SET error = left(p_error, 500) WHERE match_id = p_match AND turn_id IS NULL AND error IS NULL;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;
