-- When to look again: the earliest due time of a reply's and of an opener's next step; NULL where there is none.
-- An open turn that finds the window full does not count: it is not time that it waits for.
CREATE OR REPLACE FUNCTION bridge.next_due(p_window integer)
RETURNS TABLE (flush_at timestamptz, initiation_at timestamptz, now timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_full boolean;
BEGIN
    SELECT count(*) >= p_window INTO v_full
    FROM (SELECT FROM bridge.turns t WHERE t.state = 'queued' LIMIT p_window) q;
    RETURN QUERY
    SELECT least(
               (SELECT min(t.due_at) FROM bridge.turns t WHERE t.state = 'open' AND t.kind = 'reply' AND NOT v_full),
               (SELECT min(t.due_at) FROM bridge.turns t WHERE t.state = 'queued'),
               (SELECT min(t.due_at) FROM bridge.turns t WHERE t.state IN ('composing', 'typing'))),
           (SELECT min(t.due_at) FROM bridge.turns t WHERE t.state = 'open' AND t.kind = 'initiation' AND NOT v_full),
           bridge.now();
END
$$;
