-- The conversation's active turn, or NULL. Found by the index that makes it the only one, never among all that are active (as
-- in ungrouped_events).
CREATE OR REPLACE FUNCTION bridge.active_turn(p_match uuid) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_seqscan = off SET jit = off AS $$
BEGIN
    RETURN (SELECT t.id FROM bridge.turns t
            WHERE t.match_id BETWEEN p_match AND p_match AND t.state IN ('composing', 'typing')
            ORDER BY t.match_id LIMIT 1);
END
$$;
