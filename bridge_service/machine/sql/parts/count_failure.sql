-- One failed attempt of an active turn: tried again after `p_retry` seconds and not before, or dead after
-- `max_attempts`.
-- Internal: the caller holds the turn's lock.
CREATE OR REPLACE FUNCTION bridge.count_failure(p_turn bigint, p_error text, p_retry double precision) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    t       bridge.turns%ROWTYPE;
    v_retry timestamptz := bridge.now() + make_interval(secs => p_retry);
BEGIN
    UPDATE bridge.turns
    SET attempts = attempts + 1, last_error = left(p_error, 500), pushes = 0,
        token = CASE WHEN state = 'typing' THEN token END,
        retry_at = v_retry, due_at = v_retry
    WHERE id = p_turn
    RETURNING * INTO t;
    IF t.attempts >= bridge.max_attempts() THEN
        PERFORM bridge.end_turn(t.id, 'dead', NULL, left(p_error, 500));
        IF t.parts_out > 0 THEN
            RETURN bridge.interruption(t.id);  -- and not dead (P0)
        END IF;
        RETURN jsonb_build_object('outcome', 'dead', 'match_id', t.match_id, 'attempts', t.attempts,
                                  'next_turn', bridge.next_turn(t.match_id));
    END IF;
    PERFORM bridge.ring_due(t.id, t.due_at);
    RETURN jsonb_build_object('outcome', 'failed', 'match_id', t.match_id, 'attempts', t.attempts);
END
$$;
