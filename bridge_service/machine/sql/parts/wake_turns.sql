-- Plans the turns that waited for a bot's wake-up which has come, at most `p_limit` a call: by rank, in the order in which they
-- came, over QUIET_SPREAD seconds (Q1). So 1,000 conversations are not answered in one second. Such a turn is `waking` until its
-- worker claims it. One whose bot sleeps on is held anew.
--
-- All turns with the same wake-up are ranked together, whatever their bots. A batch goes on where the one before ended: from the
-- place of the last waking turn, with what is left.
--
-- One session plans at a time, since two that began at the same place would mix the order. The lock is that of the installation's
-- row, which is never waited for: the other session plans, and comes again.
-- Internal: called by push_due, before it holds any turn's lock.
CREATE OR REPLACE FUNCTION bridge.wake_turns(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_hashjoin = on SET enable_sort = on SET jit = off AS $$
DECLARE
    v_epoch bigint := floor(extract(epoch FROM p_now));
    v_turns bigint[];
    v_count integer;
BEGIN
    PERFORM FROM bridge.turns t
    WHERE t.state = 'open' AND t.held = 'hours' AND t.held_limit <= v_epoch AND t.due_at <= p_now LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    PERFORM FROM bridge.installation i FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    v_turns := ARRAY(
        SELECT t.id FROM bridge.turns t
        WHERE t.state = 'open' AND t.held = 'hours' AND t.held_limit <= v_epoch AND t.due_at <= p_now
        ORDER BY t.held_limit, t.due_at, t.opened_at, t.id LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED);
    WITH batch AS MATERIALIZED (
        SELECT t.id, t.bot_id, t.held_limit AS wakes_at,
               row_number() OVER (PARTITION BY t.held_limit ORDER BY t.due_at, t.opened_at, t.id) AS rank
        FROM bridge.turns t WHERE t.id = ANY (v_turns)),
    bots AS MATERIALIZED (
        SELECT r.* FROM bridge.rest_of(ARRAY(SELECT DISTINCT b.bot_id FROM batch b), p_now) r),
    groups AS MATERIALIZED (
        SELECT g.wakes_at, l.size, coalesce(w.place + (1 - w.place) / (l.size + 1), 0) AS place
        FROM (SELECT DISTINCT b.wakes_at FROM batch b) g
        CROSS JOIN LATERAL (
            SELECT count(*) AS size FROM bridge.turns t
            WHERE t.state = 'open' AND t.held = 'hours' AND t.held_limit = g.wakes_at) l
        LEFT JOIN LATERAL (  -- 0 at the wake-up, 1 at the end of the spread
            SELECT least(greatest((extract(epoch FROM t.due_at) - g.wakes_at) / nullif(p.quiet_spread, 0), 0), 1) AS place
            FROM (SELECT o.bot_id, o.due_at FROM bridge.turns o
                  WHERE o.state = 'open' AND o.held = 'waking' AND o.held_limit = g.wakes_at
                  ORDER BY o.due_at DESC LIMIT 1) t
            CROSS JOIN LATERAL bridge.policy(t.bot_id) p) w ON true),
    planned AS MATERIALIZED (
        SELECT b.id, r.asleep_until, coalesce(r.asleep_until, to_timestamp(
                   b.wakes_at + r.spread * (g.place + (b.rank - 1) * (1 - g.place) / g.size) + b.rank * 0.000001)) AS due_at
        FROM batch b JOIN bots r ON r.bot_id = b.bot_id JOIN groups g ON g.wakes_at = b.wakes_at)
    UPDATE bridge.turns t
    SET due_at = greatest(n.due_at, t.retry_at), held_until = n.due_at,
        held = CASE WHEN n.asleep_until IS NULL THEN 'waking' ELSE 'hours' END,
        held_limit = coalesce(extract(epoch FROM n.asleep_until)::bigint, t.held_limit),
        -- `report` judges the first push by it. A turn from before there was such a plan keeps none.
        planned_at = CASE WHEN t.queued_at IS NULL AND t.planned_at < n.due_at THEN n.due_at ELSE t.planned_at END
    FROM planned n WHERE t.id = n.id;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;
