-- The operator gives a dead turn up: it is cancelled as `dropped`, its messages stay unanswered.
-- Returns {outcome: dropped | nothing, state: of a turn that is not dead}.
CREATE OR REPLACE FUNCTION bridge.drop_dead(p_turn bigint) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    v_state text;
BEGIN
    SELECT state INTO v_state FROM bridge.turns WHERE id = p_turn FOR NO KEY UPDATE;
    IF v_state IS DISTINCT FROM 'dead' THEN
        RETURN jsonb_build_object('outcome', 'nothing', 'state', v_state);
    END IF;
    PERFORM bridge.cancel_turn(p_turn, 'dropped');
    RETURN jsonb_build_object('outcome', 'dropped');
END
$$;
