-- composing --> open: the worker that holds the token may begin no call, since a limit is reached (Q0). If the limit
-- was raised meanwhile, or a new day has begun, the turn is due at once.
-- Returns {outcome: held | later | fenced, ...}; see hold_turn.
CREATE OR REPLACE FUNCTION bridge.hold(p_turn bigint, p_token uuid) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    t      bridge.turns%ROWTYPE;
    v_held jsonb;
BEGIN
    PERFORM bridge.assert_read_committed();
    SELECT * INTO t FROM bridge.turns WHERE id = p_turn FOR NO KEY UPDATE;
    IF NOT FOUND OR t.state <> 'composing' OR t.token IS DISTINCT FROM p_token THEN
        RETURN '{"outcome": "fenced"}';
    END IF;
    v_held := bridge.hold_turn(t.id);
    IF v_held IS NULL THEN
        UPDATE bridge.turns SET token = NULL, pushes = 0, due_at = bridge.now() WHERE id = t.id;
        PERFORM bridge.notify('bridge_due');
        RETURN '{"outcome": "later"}';
    END IF;
    RETURN v_held;
END
$$;
