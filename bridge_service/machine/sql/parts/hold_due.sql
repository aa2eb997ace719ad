-- Holds the due turns of sleeping bots until the wake-up, so that nothing is pushed in quiet hours (Q1): open ones, openers too,
-- and those whose push no worker took. No attempt is counted. At most `p_limit` of each state are looked at. What is composed or
-- pushed already is held by its claim.
--
-- Returns the open turns that are due and whose bots are awake, locked: the caller may push these and no others. Those that
-- wake_turns.sql has still to plan are left out.
CREATE OR REPLACE FUNCTION bridge.hold_due(p_now timestamptz, p_limit integer) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_sort = off SET jit = off AS $$
DECLARE
    v_epoch  bigint := floor(extract(epoch FROM p_now));
    v_open   bigint[];
    v_queued bigint[];
    v_held   bigint[];
    v_asleep jsonb;  -- the wake-ups, in seconds since the epoch, by bot
BEGIN
    v_open := ARRAY(
        SELECT t.id FROM bridge.turns t
        WHERE t.state = 'open' AND t.due_at <= p_now AND (t.held = 'hours' AND t.held_limit <= v_epoch) IS NOT TRUE
        ORDER BY t.due_at LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED);
    v_queued := ARRAY(
        SELECT t.id FROM bridge.turns t
        WHERE t.state = 'queued' AND t.due_at <= p_now
        ORDER BY t.due_at LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED);
    IF v_open || v_queued = '{}' THEN
        RETURN v_open;
    END IF;
    SELECT jsonb_object_agg(r.bot_id, extract(epoch FROM r.asleep_until)) INTO v_asleep
    FROM bridge.rest_of(ARRAY(SELECT t.bot_id FROM bridge.turns t WHERE t.id = ANY (v_open || v_queued)), p_now) r
    WHERE r.asleep_until IS NOT NULL;
    IF v_asleep IS NULL THEN
        RETURN v_open;
    END IF;
    WITH held AS (
        UPDATE bridge.turns t
        SET state = 'open', held = 'hours', held_until = w.wakes_at, due_at = greatest(w.wakes_at, t.retry_at), pushes = 0,
            held_limit = extract(epoch FROM w.wakes_at)
        FROM unnest(v_open || v_queued) AS d (id)
        CROSS JOIN LATERAL (
            SELECT to_timestamp((v_asleep -> o.bot_id::text)::double precision) AS wakes_at
            FROM bridge.turns o WHERE o.id = d.id AND v_asleep ? o.bot_id::text OFFSET 0) w
        WHERE t.id = d.id
        RETURNING t.id)
    SELECT array_agg(h.id) INTO v_held FROM held h;
    RETURN ARRAY(SELECT o.id FROM unnest(v_open) AS o (id) WHERE o.id <> ALL (v_held));
END
$$;
