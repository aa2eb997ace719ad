-- The responder raised. An error counts as an attempt. A responder that is away (`p_counts` false) costs none, or an
-- hour without it would kill every turn (A1). Either way the worker's token is taken away, and the turn is not claimed
-- before its `retry_at` (T5).
--
-- p_retry: seconds until then. While the responder is away the turn waits longer each time: a quarter of the time since
--   its first push, between `p_retry` and 60 s, minus up to 25 % by a draw of its match.
-- p_max_attempts: unused, for the version before passes it
-- p_refused: why PostgreSQL refused the draft, if that was the error; the responder is told it at the next call
--
-- Returns {outcome: failed | dead | fenced, ...}; of a responder that is away also `retry`, the seconds until the next
-- call.
CREATE OR REPLACE FUNCTION bridge.fail(
    p_turn bigint, p_token uuid, p_error text, p_retry double precision, p_counts boolean,
    p_max_attempts integer DEFAULT NULL, p_refused text DEFAULT NULL)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    t       bridge.turns%ROWTYPE;
    v_now   timestamptz := bridge.now();
    v_pause double precision;
BEGIN
    SELECT * INTO t FROM bridge.turns WHERE id = p_turn FOR NO KEY UPDATE;
    IF NOT FOUND OR t.state <> 'composing' OR t.token IS DISTINCT FROM p_token THEN
        RETURN jsonb_build_object('outcome', 'fenced');
    ELSIF p_counts THEN
        UPDATE bridge.turns SET refused = p_refused WHERE id = t.id AND p_refused IS NOT NULL;
        RETURN bridge.count_failure(t.id, p_error, p_retry);
    END IF;
    v_pause := greatest(
        p_retry, least(60, extract(epoch FROM v_now - t.queued_at) / 4) * (1 - bridge.draw(t.match_id, 'away') / 4));
    UPDATE bridge.turns
    SET token = NULL, pushes = 0, last_error = left(p_error, 500),
        retry_at = v_now + make_interval(secs => v_pause), due_at = v_now + make_interval(secs => v_pause)
    WHERE id = t.id
    RETURNING due_at INTO t.due_at;
    PERFORM bridge.ring_due(t.id, t.due_at);
    RETURN jsonb_build_object(
        'outcome', 'failed', 'match_id', t.match_id, 'attempts', t.attempts, 'retry', round(v_pause::numeric, 1));
END
$$;
