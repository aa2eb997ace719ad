-- typing --> answered, as a set: at most `p_limit` replies whose time has come, in one transaction (B1). deliver_turn
-- delivers each in its own subtransaction, with a lock timeout of 20 ms. The set ends at the first lock that it does
-- not get, and after 50 ms: until it commits, the app's transactions may wait for what it holds.
--
-- p_alone: turns that the caller delivers alone, because they failed or held up a set
--
-- Conversations are taken in the order of `match_id`, as group_events takes them, and a turn that another step holds is
-- skipped (B2). So two schedulers deliver side by side, and neither waits for the other.
--
-- Returns {turns: [[id, what deliver_turn returned, or {outcome: alone}], ...], due_in: seconds until the next one}.
-- `alone`: a lock timed out, or deliver_turn raised; nothing was changed. `due_in` is NULL if none is planned.
CREATE OR REPLACE FUNCTION bridge.deliver_due(p_limit integer, p_alone bigint[]) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '20ms'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off SET jit = off AS $$
DECLARE
    c_alone   CONSTANT jsonb := '{"outcome": "alone"}';
    v_until   timestamptz := bridge.now() + interval '50 milliseconds';
    v_turns   jsonb := '[]';
    v_turn    bigint;
    v_kind    text;
    v_match   uuid;
    v_answer  jsonb;
    v_locked  boolean := false;  -- another session holds what the last turn needs
BEGIN
    FOR v_turn, v_kind, v_match IN
        SELECT t.id, t.kind, t.match_id FROM unnest(bridge.due_deliveries(p_limit, p_alone)) AS d (id)
        JOIN bridge.turns t ON t.id = d.id ORDER BY t.match_id
    LOOP
        EXIT WHEN v_locked OR (v_turns <> '[]' AND bridge.now() > v_until);
        BEGIN
            IF bridge.speaks_first(v_kind) THEN  -- the match's event before the turn, as in deliver_turn (F1)
                PERFORM FROM bridge.events e WHERE e.kind = 'match' AND e.match_id = v_match FOR UPDATE;
            END IF;
            PERFORM FROM bridge.turns t
            WHERE t.id = v_turn AND (t.state = 'typing') IS TRUE FOR NO KEY UPDATE SKIP LOCKED;  -- by id
            CONTINUE WHEN NOT FOUND;
            -- The turn that this one's end wakes. Its lock is taken here, where it is waited for 20 ms at most.
            PERFORM FROM bridge.turns w
            WHERE w.match_id = v_match AND bridge.is_waiting(w.kind, w.state) FOR NO KEY UPDATE;
            v_answer := bridge.deliver_turn(v_turn, p_patience => current_setting('lock_timeout'));
            IF v_answer ->> 'outcome' = 'later' AND NOT v_answer ? 'error' THEN
                RAISE lock_not_available;  -- takes its new due time back: delivered alone, it may succeed at once
            END IF;
        EXCEPTION
            WHEN lock_not_available OR deadlock_detected THEN
                v_answer := c_alone;
                v_locked := true;
            WHEN OTHERS OR assert_failure THEN
                v_answer := c_alone;
        END;
        v_turns := v_turns || jsonb_build_array(jsonb_build_array(v_turn, v_answer));
    END LOOP;
    RETURN jsonb_build_object('turns', v_turns, 'due_in', (
        SELECT extract(epoch FROM t.due_at - bridge.now()) FROM bridge.turns t
        WHERE t.state = 'typing' AND t.id <> ALL (p_alone)
          AND NOT v_turns @> jsonb_build_array(jsonb_build_array(t.id, c_alone))
        ORDER BY t.due_at LIMIT 1));
END
$$;
