-- The replies whose time has come, at most `p_limit`, the longest due first, without those in `p_alone`.
-- Changes nothing. (The order as in push_due.)
CREATE OR REPLACE FUNCTION bridge.due_deliveries(p_limit integer, p_alone bigint[]) RETURNS bigint[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_sort = off SET jit = off AS $$
BEGIN
    RETURN ARRAY(SELECT t.id FROM bridge.turns t
                 WHERE t.state = 'typing' AND t.due_at <= (SELECT bridge.now()) AND t.id <> ALL (p_alone)
                 ORDER BY t.due_at LIMIT p_limit);
END
$$;
