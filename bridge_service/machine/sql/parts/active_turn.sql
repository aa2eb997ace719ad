-- The conversation's active turn, or NULL.
CREATE OR REPLACE FUNCTION bridge.active_turn(p_match uuid) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
BEGIN
    RETURN (SELECT t.id FROM bridge.turns t WHERE t.match_id = p_match AND t.state IN ('composing', 'typing'));
END
$$;
