-- The operator lets a dead turn try again; or a turn that was cancelled as `gone` or `refused` and still has its
-- events, since what was missing may be there again.
--
-- A reply's events move into the conversation's waiting turn, made if there is none and due at once, and the dead turn
-- is cancelled as `retried`: set back itself, it would collide with the waiting one (A2, T1).
-- A match gets only one opener, for ever (I4). So an opener is queued again in its own row, with its failures
-- forgotten. If the match has a message by now, it is cancelled instead. The match's event is locked before that look,
-- as for a delivery (F1).
--
-- Returns {outcome: retried | cancelled | nothing, state: of a turn that cannot, turn_id: where it goes on}.
CREATE OR REPLACE FUNCTION bridge.retry_dead(p_turn bigint) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    t         bridge.turns%ROWTYPE;
    v_waiting bigint;
    v_retried boolean;
BEGIN
    PERFORM bridge.assert_read_committed();
    PERFORM FROM bridge.events e JOIN bridge.turns i ON i.match_id = e.match_id
    WHERE i.id = p_turn AND bridge.speaks_first(i.kind) AND i.state IN ('dead', 'cancelled') AND e.kind = 'match'
    FOR UPDATE OF e;

    SELECT * INTO t FROM bridge.turns WHERE id = p_turn FOR NO KEY UPDATE;
    v_retried := t.state = 'dead' OR (t.state = 'cancelled' AND t.reason IN ('gone', 'refused')
                                      AND EXISTS (SELECT FROM bridge.events e
                                                  WHERE e.turn_id = t.id AND (e.kind = 'message') IS TRUE));
    IF v_retried IS NOT TRUE THEN
        RETURN jsonb_build_object('outcome', 'nothing', 'state', t.state);
    ELSIF bridge.answers(t.kind) THEN
        v_waiting := bridge.open_waiting(t.match_id, t.bot_id, NULL);
        UPDATE bridge.events SET turn_id = v_waiting WHERE turn_id = t.id;
        PERFORM bridge.cancel_turn(t.id, 'retried');
    ELSE
        PERFORM FROM bridge.history(t.match_id, '{}', 1);
        IF FOUND THEN
            PERFORM bridge.cancel_turn(t.id, 'message');
            RETURN jsonb_build_object('outcome', 'cancelled', 'state', 'cancelled');
        END IF;
        v_waiting := t.id;
        UPDATE bridge.turns
        SET state = 'queued', due_at = bridge.now(), ended_at = NULL, pushes = 0, attempts = 0, takeovers = 0,
            token = NULL, covers = NULL, deliver_at = NULL, reason = NULL, retry_at = NULL
        WHERE id = t.id;
    END IF;
    PERFORM bridge.notify('bridge_due');
    RETURN jsonb_build_object('outcome', 'retried', 'turn_id', v_waiting);
END
$$;
