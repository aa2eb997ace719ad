-- The processes that were seen within the last `p_seconds`, the latest start first, for `status`, `report` and the
-- console.
-- environment: what its environment sets of the policy, or NULL.
-- cpu_share: of one processor, on average since the start. vanished: not seen for `p_silence` seconds without having
-- ended in order: killed, crashed, or cut off from PostgreSQL.
CREATE OR REPLACE FUNCTION bridge.processes(p_seconds double precision, p_silence double precision) RETURNS SETOF jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    v_now timestamptz := bridge.now();  -- a value, by which the planner sees that the index leads to few rows
BEGIN
    RETURN QUERY
    SELECT jsonb_build_object(
        'role', p.role, 'started_at', p.started_at, 'seen_at', p.seen_at,
        'state', CASE WHEN p.ended_at IS NOT NULL THEN 'ended'
                      WHEN p.seen_at < v_now - make_interval(secs => p_silence) THEN 'vanished'
                      ELSE 'alive' END,
        'uptime_seconds', round(p.uptime::numeric, 1),
        'rss_bytes', p.rss_bytes, 'rss_peak_bytes', p.rss_peak_bytes,
        'cpu_share', round((p.cpu_seconds / greatest(p.uptime, 1))::numeric, 4),
        'environment', p.environment)
    FROM (SELECT b.*, extract(epoch FROM b.seen_at - b.started_at)::double precision AS uptime FROM bridge.processes b) p
    WHERE p.seen_at > v_now - make_interval(secs => p_seconds)
    ORDER BY p.started_at DESC, p.id LIMIT 1000;
END
$$;
