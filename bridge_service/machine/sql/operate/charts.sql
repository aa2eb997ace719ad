-- The last hour by the minute and the last day by ten minutes, for the console: what close_minutes.sql counted, and how
-- often a push to Redis failed. It reads a day of both tables.
--
-- Returns {now, hour: [60 × p], day: [144 × p]}, oldest first, p = {at, answered, p50, p99, tokens, retries}
--   now, at: seconds since the epoch; at: the beginning
--   answered, tokens: a minute, the average of a part; p50, p99: lateness in seconds, the greatest of the part's
--     minutes; null if no minute of the part was counted, or nothing was answered
CREATE OR REPLACE FUNCTION bridge.charts() RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_now  timestamptz := bridge.now();
    v_hour jsonb;
    v_day  jsonb;
BEGIN
    SELECT jsonb_agg(p.part) FILTER (WHERE p.width = 60), jsonb_agg(p.part) FILTER (WHERE p.width = 600)
    INTO v_hour, v_day
    FROM (
        SELECT w.width, jsonb_build_object(
            'at', extract(epoch FROM b.at), 'answered', round(m.answered, 2), 'p50', m.p50, 'p99', m.p99,
            'tokens', round(m.tokens), 'retries', i.retries) AS part
        FROM (VALUES (60, 60, 1), (600, 144, 0)) AS w (width, parts, newest)  -- without the present minute
        CROSS JOIN LATERAL (
            SELECT to_timestamp(floor(extract(epoch FROM v_now) / w.width) * w.width - w.width * n.n) AS at
            FROM generate_series(w.newest + w.parts - 1, w.newest, -1) AS n (n)) b
        CROSS JOIN LATERAL (
            SELECT avg(c.answered) AS answered, max(c.lateness_p50) AS p50, max(c.lateness_p99) AS p99, avg(c.tokens) AS tokens
            FROM bridge.minutes c
            WHERE c.minute >= b.at AND c.minute < b.at + make_interval(secs => w.width)) m
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(x.times), 0) AS retries
            FROM bridge.incidents x
            WHERE x.happened_at >= b.at AND x.happened_at < b.at + make_interval(secs => w.width)
              AND x.kind = 'redis_attempt_failed') i
        ORDER BY w.width, b.at) p;
    RETURN jsonb_build_object('now', extract(epoch FROM v_now), 'hour', v_hour, 'day', v_day);
END
$$;
