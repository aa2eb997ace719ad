-- Ends a turn as cancelled and says so in the form the steps return. Internal: the caller holds the turn's lock.
CREATE OR REPLACE FUNCTION bridge.cancel_turn(p_turn bigint, p_reason text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    v_answer jsonb;
BEGIN
    IF p_reason = 'gone' THEN
        PERFORM bridge.assert_rows_seen();
    END IF;
    PERFORM bridge.end_turn(p_turn, 'cancelled', p_reason);
    SELECT CASE WHEN t.state = 'answered' THEN bridge.interruption(t.id)  -- something was said already (P0)
           ELSE jsonb_build_object('outcome', 'cancelled', 'reason', p_reason, 'kind', t.kind, 'match_id', t.match_id,
                                   'next_turn', bridge.next_turn(t.match_id)) END
    INTO v_answer
    FROM bridge.turns t WHERE t.id = p_turn;
    RETURN v_answer;
END
$$;
