-- The one way out of the machine: every turn that is answered, cancelled or dead came through here. Erases the draft
-- and why one was refused. Wakes the conversation's waiting turn in the same transaction, or that turn would wait for
-- its next push (T7).
-- A turn of which a message was said already ends as `answered`, whatever ends it (P0).
-- Internal: the caller holds the turn's lock and has checked that it may end.
CREATE OR REPLACE FUNCTION bridge.end_turn(p_turn bigint, p_state text, p_reason text DEFAULT NULL, p_error text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_now    timestamptz := bridge.now();
    v_match  uuid;
    v_typing timestamptz;
    v_parts  integer;
BEGIN
    UPDATE bridge.turns t
    SET state = CASE WHEN t.parts_out > 0 THEN 'answered' ELSE p_state END,
        reason = CASE WHEN t.parts_out > 0 AND p_state = 'dead' THEN 'failed' ELSE p_reason END,
        last_error = coalesce(p_error, t.last_error),
        -- The last words of a reply without a goodbye (F3).
        follow_up_at = CASE WHEN p_state = 'answered' AND p_reason IS NULL AND t.action <> 'leave'
                            THEN v_now + make_interval(secs => t.follow_up_after) END,
        draft = NULL, due_at = NULL, refused = NULL, said = NULL, withheld = NULL, ended_at = v_now,
        answered_at = CASE WHEN p_state = 'answered' OR t.parts_out > 0 THEN v_now END,
        reply_message_id = CASE WHEN (p_state = 'answered' OR t.parts_out > 0) AND p_reason IS DISTINCT FROM 'silence'
                                THEN t.reply_message_id END
    WHERE t.id = p_turn
    RETURNING t.match_id, t.parts, t.typing_at INTO v_match, v_parts, v_typing;
    IF v_parts IS NOT NULL THEN
        PERFORM bridge.end_parts(p_turn, v_match);
    END IF;

    -- -1 tells push_due that the next push is none that was lost.
    UPDATE bridge.turns t SET due_at = greatest(v_now, t.retry_at), pushes = -1
    WHERE t.match_id = v_match AND bridge.is_waiting(t.kind, t.state)
      AND (t.state = 'queued') IS TRUE AND t.id <> p_turn;  -- as in next_turn
    IF FOUND THEN
        PERFORM bridge.notify('bridge_due');
    END IF;
    IF v_typing IS NOT NULL THEN  -- last: it touches the app's rows
        PERFORM bridge.end_typing(p_turn);
    END IF;
END
$$;
