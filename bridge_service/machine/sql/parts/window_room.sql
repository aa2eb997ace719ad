-- How many more turns may be `queued` in a window of so many (T9). The window is for what the workers can take: a turn
-- whose conversation has an active one finds it busy and leaves Redis at once, and as long as somebody "types" it would
-- keep its place from others.
CREATE OR REPLACE FUNCTION bridge.window_room(p_window integer) RETURNS integer
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
    v_taken integer;
BEGIN
    SELECT count(*) INTO v_taken FROM (SELECT FROM bridge.turns t WHERE t.state = 'queued' LIMIT p_window) q;
    IF v_taken >= p_window THEN
        SELECT count(*) INTO v_taken
        FROM (SELECT FROM bridge.turns t
              WHERE t.state = 'queued' AND bridge.active_turn(t.match_id) IS NULL
              LIMIT p_window) q;
    END IF;
    RETURN p_window - v_taken;
END
$$;
