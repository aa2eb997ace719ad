-- The turns that are due and not taken yet, the longest overdue first, for the console's page; see latest_turns.sql.
-- Each state has its own index.
CREATE OR REPLACE FUNCTION bridge.late_turns(p_limit integer) RETURNS SETOF jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET jit = off AS $$
    SELECT bridge.turn_lines(ARRAY(
        SELECT l.id
        FROM ((SELECT t.id, t.due_at FROM bridge.turns t
               WHERE t.state = 'open' AND t.due_at <= (SELECT bridge.now()) ORDER BY t.due_at LIMIT p_limit)
              UNION ALL
              (SELECT t.id, t.due_at FROM bridge.turns t
               WHERE t.state = 'queued' AND t.due_at <= (SELECT bridge.now()) ORDER BY t.due_at LIMIT p_limit)
              UNION ALL
              (SELECT t.id, t.due_at FROM bridge.turns t
               WHERE t.state IN ('composing', 'typing') AND t.due_at <= (SELECT bridge.now())
               ORDER BY t.due_at LIMIT p_limit)) l
        ORDER BY l.due_at, l.id LIMIT p_limit))
$$;
