-- PostgreSQL refused what a step had to read: the adapter raised, or bytes are no text. This counts as an attempt of
-- the turn, like an error of its responder.
--
-- The step was rolled back, so this is a call of its own, and no token guards it. Instead, nothing is counted before
-- the `retry_at` of the last count, neither for the same call again nor for another process. A claim is counted at most
-- once a push: push_due adds to `pushes`, and a count sets it to 0.
--
-- p_step: what was refused, compose or deliver
-- p_max_attempts: unused, for the version before passes it
--
-- Returns {outcome: failed | dead | nothing, ...}.
CREATE OR REPLACE FUNCTION bridge.unreadable(p_turn bigint, p_step text, p_error text, p_max_attempts integer DEFAULT NULL)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    t bridge.turns%ROWTYPE;
BEGIN
    SELECT * INTO t FROM bridge.turns
    WHERE id = p_turn AND (retry_at > bridge.now()) IS NOT TRUE
      AND CASE p_step WHEN 'compose' THEN pushes > 0 AND (state = 'queued' OR (state = 'composing' AND token IS NULL))
                      WHEN 'deliver' THEN state = 'typing' AND greatest(deliver_at, part_at) <= bridge.now() END
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'nothing');
    ELSIF t.state = 'queued' THEN
        -- Active from now on: a message that comes meanwhile opens a waiting turn, and does not share this turn's end.
        BEGIN
            UPDATE bridge.turns SET state = 'composing' WHERE id = t.id;
        EXCEPTION WHEN unique_violation THEN
            RETURN jsonb_build_object('outcome', 'nothing');  -- the opener or the reply became active meanwhile (T1)
        END;
    END IF;
    RETURN bridge.count_failure(t.id, p_error, 2 ^ t.attempts)
        || jsonb_build_object('error', 'DatabaseRefused');
END
$$;
