-- The operator changed a bot's hours: turns that wait for a wake-up which is no longer the bot's are planned anew, at most
-- `p_limit` a call. If the bot is awake they wake now, and wake_turns.sql ranks them. A wake-up of `rest_of` that was cut at a
-- day is moved once the true one is within a day.
CREATE OR REPLACE FUNCTION bridge.plan_hours(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_hashjoin = on SET enable_sort = on SET jit = off AS $$
DECLARE
    v_now   timestamptz := bridge.now();
    v_epoch bigint := floor(extract(epoch FROM v_now));
    v_count integer;
BEGIN
    WITH RECURSIVE bots (bot_id) AS (  -- one probe a bot, and not a row a turn
        (SELECT t.bot_id FROM bridge.turns t
         WHERE t.state = 'open' AND t.held IS NOT NULL ORDER BY t.bot_id LIMIT 1)
        UNION ALL
        SELECT (SELECT t.bot_id FROM bridge.turns t
                WHERE t.state = 'open' AND t.held IS NOT NULL AND t.bot_id > b.bot_id ORDER BY t.bot_id LIMIT 1)
        FROM bots b WHERE b.bot_id IS NOT NULL),
    rest AS MATERIALIZED (
        SELECT r.bot_id, coalesce(r.asleep_until, to_timestamp(v_epoch)) AS wakes_at,
               r.asleep_until > v_now + interval '23:59' AS is_cut
        FROM bridge.rest_of(ARRAY(SELECT b.bot_id FROM bots b WHERE b.bot_id IS NOT NULL), v_now) r),
    changed AS MATERIALIZED (
        SELECT c.id, r.wakes_at
        FROM rest r CROSS JOIN LATERAL (
            SELECT t.id FROM bridge.turns t
            WHERE t.state = 'open' AND t.held = 'hours' AND t.bot_id = r.bot_id AND t.held_limit > v_epoch
              AND t.held_limit <> extract(epoch FROM r.wakes_at)::bigint
              AND NOT (r.is_cut AND t.held_limit < extract(epoch FROM r.wakes_at)::bigint)) c
        LIMIT p_limit),
    mine AS (
        SELECT t.id, c.wakes_at FROM bridge.turns t JOIN changed c ON c.id = t.id
        WHERE (t.state = 'open' AND t.held = 'hours') IS TRUE
        FOR NO KEY UPDATE OF t SKIP LOCKED)
    UPDATE bridge.turns t
    SET due_at = greatest(m.wakes_at, t.retry_at), held_until = m.wakes_at, held_limit = extract(epoch FROM m.wakes_at)
    FROM mine m WHERE t.id = m.id;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;
