-- Puts a turn off while it may not be answered (Q0): `open` and `held`, due when not_now.sql says. Where a limit rules that is
-- the next day, spread over five minutes. No attempt is counted. A conversation has one waiting turn (T1): if there is another, the
-- events of this one move there without counting a merge, and that one is held. New messages join it and do not move it.
-- Internal: the caller holds the turn's lock.
--
-- Returns NULL if it may be answered, else {outcome: held, cause, until, ...}.
CREATE OR REPLACE FUNCTION bridge.hold_turn(p_turn bigint) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    t         bridge.turns%ROWTYPE;
    v_over    record;
    v_due     timestamptz;
    v_waiting bigint;
BEGIN
    SELECT * INTO t FROM bridge.turns WHERE id = p_turn;
    SELECT * INTO v_over FROM bridge.not_now(t.id);
    IF v_over.cause IS NULL THEN
        RETURN NULL;
    END IF;
    v_due := v_over.until + make_interval(secs => CASE WHEN v_over.day IS NULL THEN 0 ELSE 300 END * bridge.draw(t.match_id, 'held'));
    v_waiting := t.id;
    LOOP
        IF bridge.answers(t.kind) THEN
            SELECT w.id INTO v_waiting FROM bridge.turns w
            WHERE w.match_id = t.match_id AND bridge.is_waiting(w.kind, w.state) AND w.id <> t.id
            FOR NO KEY UPDATE;
            v_waiting := coalesce(v_waiting, t.id);
        END IF;
        BEGIN
            UPDATE bridge.turns w
            SET state = 'open', held = v_over.cause, held_until = v_due, held_limit = v_over.ruling, due_at = v_due,
                token = NULL, draft = NULL, pushes = 0, retry_at = NULL,
                merges = greatest(w.merges, t.merges), attempts = greatest(w.attempts, t.attempts),
                takeovers = greatest(w.takeovers, t.takeovers), last_error = coalesce(t.last_error, w.last_error),
                refused = coalesce(t.refused, w.refused)
            WHERE w.id = v_waiting;
            EXIT;
        EXCEPTION WHEN unique_violation THEN NULL;  -- a waiting turn was opened in the same instant: look again
        END;
    END LOOP;
    IF v_waiting <> t.id THEN
        UPDATE bridge.events SET turn_id = v_waiting WHERE turn_id = t.id;
        PERFORM bridge.cancel_turn(t.id, 'superseded');
    END IF;
    IF bridge.answers(t.kind) AND v_over.day IS NOT NULL THEN
        PERFORM bridge.say_over_limit(v_waiting, v_over.day);
    END IF;
    RETURN jsonb_build_object('outcome', 'held', 'cause', v_over.cause, 'until', to_char(
        v_over.until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'match_id', t.match_id, 'kind', t.kind);
END
$$;
