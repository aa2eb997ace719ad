-- How many more turns may be `queued` under the push limit `p_window` (T9). Once the limit is reached, a turn whose
-- conversation has an active one does not count: a worker that takes it finds the conversation busy and drops the push
-- at once. Counted, it would keep others from being pushed as long as the bot types.
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
