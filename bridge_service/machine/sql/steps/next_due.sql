-- When the scheduler pushes again: the earliest due time of a reply's and of an opener's next step; NULL where there is
-- none.
--
-- An open turn that finds the push limit reached waits for workers, not for its time. Their claims ring no bell, so the
-- scheduler looks again half a second later. In less time no workers claim 2,000 turns. (Orders as in push_due.)
--
-- p_window: the push limit
-- p_deliveries: for the version before, as in push_due
CREATE OR REPLACE FUNCTION bridge.next_due(p_window integer, p_deliveries boolean DEFAULT true)
RETURNS TABLE (flush_at timestamptz, initiation_at timestamptz, now timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
    v_now     timestamptz := bridge.now();
    v_room_at timestamptz;
BEGIN
    IF bridge.window_room(p_window) <= 0 THEN
        v_room_at := v_now + interval '0.5 s';
    END IF;
    RETURN QUERY
    SELECT least(
               (SELECT greatest(t.due_at, v_room_at) FROM bridge.turns t
                WHERE t.state = 'open' AND bridge.answers(t.kind) ORDER BY t.due_at LIMIT 1),
               (SELECT t.due_at FROM bridge.turns t WHERE t.state = 'queued' ORDER BY t.due_at LIMIT 1),
               (SELECT t.due_at FROM bridge.turns t WHERE t.state = 'composing' ORDER BY t.due_at LIMIT 1),
               CASE WHEN p_deliveries THEN
                   (SELECT t.due_at FROM bridge.turns t WHERE t.state = 'typing' ORDER BY t.due_at LIMIT 1) END),
           (SELECT greatest(t.due_at, v_room_at) FROM bridge.turns t
            WHERE t.state = 'open' AND bridge.speaks_first(t.kind) ORDER BY t.due_at LIMIT 1),
           v_now;
END
$$;
