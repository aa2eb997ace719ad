-- Plans one match's opener `p_delay` seconds from now, whatever was drawn for it: `validate` must not depend on
-- INITIATION_PROBABILITY. It plans only an opener that is open, or was cancelled because it was not drawn. What is
-- under way, was said, or was cancelled by a message stays as it is (I4). Nothing is inserted, so there is never a
-- second.
--
-- Returns {outcome: planned, turn_id, due_at in seconds since the epoch} or {outcome: no_bot (not exactly one side is a
--   bot) | not_grouped (no scheduler has seen the match yet) | message | nothing, state, turn_id}.
CREATE OR REPLACE FUNCTION bridge.plan_opener(p_match uuid, p_delay double precision) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    t bridge.turns%ROWTYPE;
BEGIN
    PERFORM bridge.assert_read_committed();
    PERFORM FROM bridge.conversation(p_match);
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'no_bot');
    END IF;
    -- As for a delivery: a message on its way holds this row, and the look below comes after it (F1).
    PERFORM FROM bridge.events WHERE kind = 'match' AND match_id = p_match FOR UPDATE;
    SELECT * INTO t FROM bridge.turns WHERE kind = 'initiation' AND match_id = p_match FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'not_grouped');
    END IF;
    PERFORM FROM bridge.history(p_match, '{}', 1);
    IF FOUND THEN
        RETURN jsonb_build_object('outcome', 'message', 'turn_id', t.id);
    END IF;
    IF t.state = 'open' OR (t.state = 'cancelled' AND t.reason = 'not_drawn') THEN
        UPDATE bridge.turns
        SET state = 'open', due_at = bridge.now() + make_interval(secs => p_delay), held = NULL, reason = NULL,
            ended_at = NULL
        WHERE id = t.id
        RETURNING * INTO t;
        PERFORM bridge.notify('bridge_due');
        RETURN jsonb_build_object('outcome', 'planned', 'turn_id', t.id, 'due_at', extract(epoch FROM t.due_at));
    END IF;
    RETURN jsonb_build_object('outcome', 'nothing', 'state', t.state, 'turn_id', t.id);
END
$$;
