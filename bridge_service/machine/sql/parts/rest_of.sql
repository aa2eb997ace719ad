-- The quiet hours of several bots at one instant, each policy read once and each window computed once.
--
-- asleep_until: when the bot wakes, at most a day away, in whole minutes; it is held again then if it still sleeps. NULL: the bot
--   is awake
-- spread: QUIET_SPREAD, in seconds
CREATE OR REPLACE FUNCTION bridge.rest_of(p_bots uuid[], p_at timestamptz)
RETURNS TABLE (bot_id uuid, asleep_until timestamptz, spread double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_sort = on SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH bots AS MATERIALIZED (
        SELECT u.bot_id, p.quiet_hours, p.quiet_hours_weekend, p.timezone, p.quiet_spread
        FROM (SELECT DISTINCT a.bot_id FROM unnest(p_bots) AS a (bot_id)) u CROSS JOIN LATERAL bridge.policy(u.bot_id) p),
    windows AS MATERIALIZED (
        SELECT z.*, bridge.quiet_until(z.quiet_hours, z.quiet_hours_weekend, z.timezone, p_at) AS wakes_at
        FROM (SELECT DISTINCT b.quiet_hours, b.quiet_hours_weekend, b.timezone FROM bots b) z)
    SELECT b.bot_id,
           CASE WHEN w.wakes_at IS NOT NULL THEN least(w.wakes_at, date_trunc('minute', p_at, 'UTC') + interval '1 day') END,
           b.quiet_spread
    FROM bots b JOIN windows w
      ON (w.quiet_hours, w.quiet_hours_weekend, w.timezone)
         IS NOT DISTINCT FROM (b.quiet_hours, b.quiet_hours_weekend, b.timezone);
END
$$;
