-- Takes what is due now, as a set: an open turn becomes `queued`, a worker loses a lease that ran out, and a push that
-- no worker took is made again. The caller then enqueues each row to Dramatiq. If it dies before, `due_at` brings the
-- turn back.
--
-- p_window: the push limit. At most `p_window` turns that workers can take are `queued`; the rest stay `open` (T9).
-- p_again, p_again_max: seconds until a push is believed lost; it doubles from the first to the second
-- p_lost_after: unused, for the version before passes it
-- p_deliveries: for the version before, whose workers deliver; false: `typing` turns are left to deliver_due
--
-- In quiet hours nothing is pushed: what is due is held, or waits for its rank after the wake-up (Q1: hold_due.sql,
-- wake_turns.sql).
--
-- Rows are found by index, whatever the table statistics say (T8): with sorting switched off, only an index gives the
-- order by due time.
--
-- `step` is `compose` or `deliver`; or `woken`, a `compose` that the end of the conversation's active turn made due,
-- which the version before does not know; or `dead`, which is only reported. `first` marks the push that the journal
-- reports. A locked row is skipped, because another step works on it.
CREATE OR REPLACE FUNCTION bridge.push_due(
    p_window integer, p_limit integer, p_again double precision, p_again_max double precision,
    p_lost_after integer DEFAULT NULL, p_deliveries boolean DEFAULT true)
RETURNS TABLE (
    turn_id bigint, step text, kind text, match_id uuid, messages bigint, first boolean, recovered boolean,
    due_at timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_now   timestamptz := bridge.now();
    v_room  integer;
    v_awake bigint[];  -- the due turns whose bots are awake; NULL: all of them
BEGIN
    SET LOCAL synchronous_commit = off;  -- lost in a crash, it is done again
    FOR turn_id, step, kind, match_id, messages, first, recovered, due_at IN
        SELECT t.id, 'dead', t.kind, t.match_id, 0, false, true, t.due_at FROM bridge.turns t
        WHERE t.state = 'composing' AND t.token IS NOT NULL AND t.due_at <= v_now AND t.takeovers + 1 >= bridge.max_takeovers()
        ORDER BY t.due_at FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        BEGIN
            PERFORM bridge.end_turn(turn_id, 'dead', NULL, format(
                'its worker died, or its responder hung, %s times', bridge.max_takeovers()));
        EXCEPTION WHEN lock_not_available THEN
            EXIT;  -- another step holds the turn that this end is to wake: the dying turn gets one more worker
        END;
        RETURN NEXT;
    END LOOP;

    -- It stays `composing`: going back to `queued` would collide with the conversation's waiting turn (T6).
    RETURN QUERY
    WITH due AS (
        SELECT t.id FROM bridge.turns t
        WHERE t.state = 'composing' AND t.due_at <= v_now
        ORDER BY t.due_at LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE bridge.turns t
    SET token = NULL, takeovers = t.takeovers + (t.token IS NOT NULL)::integer,
        pushes = CASE WHEN t.token IS NOT NULL THEN 1 ELSE t.pushes + 1 END,
        due_at = v_now + make_interval(secs => least(
            p_again * 2 ^ CASE WHEN t.token IS NOT NULL THEN 0 ELSE least(t.pushes, 20) END, p_again_max))
    FROM due, bridge.turns old
    WHERE t.id = due.id AND old.id = due.id
    RETURNING t.id, 'compose', t.kind, t.match_id, 0::bigint, false, old.token IS NOT NULL, old.due_at;

    IF p_deliveries THEN
        RETURN QUERY
        WITH due AS (
            SELECT t.id, t.due_at FROM bridge.turns t
            WHERE t.state = 'typing' AND t.due_at <= v_now
            ORDER BY t.due_at LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED)
        UPDATE bridge.turns t
        SET pushes = t.pushes + 1,
            due_at = v_now + make_interval(secs => least(p_again * 2 ^ least(t.pushes, 20), p_again_max))
        FROM due WHERE t.id = due.id
        RETURNING t.id, 'deliver', t.kind, t.match_id, 0::bigint, false, false, due.due_at;
    END IF;

    IF bridge.has_hours()
       OR EXISTS (SELECT FROM bridge.turns h WHERE h.state = 'open' AND h.held = 'hours' ORDER BY h.held_limit LIMIT 1) THEN
        PERFORM bridge.wake_turns(v_now, 2 * p_limit);
        v_awake := bridge.hold_due(v_now, p_limit);
    END IF;

    RETURN QUERY
    WITH due AS (
        SELECT t.id, t.due_at, t.pushes FROM bridge.turns t
        WHERE t.state = 'queued' AND t.due_at <= v_now
        ORDER BY t.due_at LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE bridge.turns t
    SET pushes = greatest(t.pushes, 0) + 1,
        due_at = v_now + make_interval(secs => least(p_again * 2 ^ least(greatest(t.pushes, 0), 20), p_again_max))
    FROM due WHERE t.id = due.id
    RETURNING t.id, CASE WHEN due.pushes < 0 AND NOT p_deliveries THEN 'woken' ELSE 'compose' END, t.kind, t.match_id,
              0::bigint, false, false, due.due_at;

    v_room := bridge.window_room(p_window);
    PERFORM bridge.keep_open(least(p_limit, v_room));
    RETURN QUERY
    WITH due AS (
        SELECT t.id, t.due_at FROM bridge.turns t
        WHERE t.state = 'open' AND t.due_at <= v_now AND (v_awake IS NULL OR t.id = ANY (v_awake))
        ORDER BY t.due_at LIMIT least(p_limit, v_room) FOR NO KEY UPDATE SKIP LOCKED),
    pushed AS (
        UPDATE bridge.turns t
        SET state = 'queued', queued_at = coalesce(t.queued_at, v_now), pushes = 1,
            due_at = v_now + make_interval(secs => p_again)
        FROM due WHERE t.id = due.id
        RETURNING t.id, t.kind, t.match_id, due.due_at)
    SELECT p.id, 'compose', p.kind, p.match_id,
           CASE WHEN bridge.answers(p.kind) THEN (
               SELECT count(*) FROM bridge.events e WHERE e.turn_id = p.id AND (e.kind = 'message') IS TRUE) ELSE 0 END,
           true, false, p.due_at
    FROM pushed p ORDER BY p.due_at;
END
$$;
