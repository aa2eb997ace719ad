-- The responder raised. An error counts as an attempt; a responder that is merely away (`p_counts` false) never does,
-- or an hour without it would kill every turn (A1). Either way the token is given up and the turn is due again.
-- Returns {outcome: failed | dead | fenced, ...}.
CREATE OR REPLACE FUNCTION bridge.fail(
    p_turn bigint, p_token uuid, p_error text, p_retry double precision, p_counts boolean, p_max_attempts integer)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    t bridge.turns%ROWTYPE;
BEGIN
    SELECT * INTO t FROM bridge.turns WHERE id = p_turn FOR NO KEY UPDATE;
    IF NOT FOUND OR t.state <> 'composing' OR t.token IS DISTINCT FROM p_token THEN
        RETURN jsonb_build_object('outcome', 'fenced');
    ELSIF p_counts THEN
        RETURN bridge.count_failure(t.id, p_error, p_retry, p_max_attempts);
    END IF;
    UPDATE bridge.turns
    SET token = NULL, pushes = 0, last_error = left(p_error, 500), due_at = bridge.now() + make_interval(secs => p_retry)
    WHERE id = t.id;
    PERFORM bridge.ring_due(t.id, bridge.now() + make_interval(secs => p_retry));
    RETURN jsonb_build_object('outcome', 'failed', 'match_id', t.match_id, 'attempts', t.attempts);
END
$$;
