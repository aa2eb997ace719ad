-- Writes a process's heartbeat: every fifteen seconds, and once more when it ends in order.
--
-- p_process: drawn by the process when it started
-- p_uptime: seconds since then; only the database's clock is written down
-- p_rss, p_cpu: resident bytes, and seconds of processor time since the start
-- p_environment: what the process's environment sets of the policy; NULL from a process of the version before
CREATE OR REPLACE FUNCTION bridge.heartbeat(
    p_process uuid, p_role text, p_uptime double precision, p_rss bigint, p_cpu double precision, p_ended boolean,
    p_environment jsonb DEFAULT NULL)
RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
    -- The first beat of a scheduler in this installation: `uninstall` and `migrate` under a running scheduler would
    -- otherwise leave its policy out until it is restarted.
    SELECT bridge.set_environment(p_environment)
    WHERE p_role = 'scheduler' AND p_environment IS NOT NULL
      AND NOT EXISTS (SELECT FROM bridge.processes b WHERE b.id = p_process);

    INSERT INTO bridge.processes AS p
        (id, role, started_at, seen_at, ended_at, rss_bytes, rss_peak_bytes, cpu_seconds, environment)
    SELECT p_process, p_role, n.now - make_interval(secs => p_uptime), n.now, CASE WHEN p_ended THEN n.now END,
           p_rss, p_rss, p_cpu, p_environment
    FROM (SELECT bridge.now() AS now) n
    ON CONFLICT (id) DO UPDATE
    SET seen_at = EXCLUDED.seen_at, ended_at = EXCLUDED.ended_at, rss_bytes = EXCLUDED.rss_bytes,
        rss_peak_bytes = greatest(p.rss_peak_bytes, EXCLUDED.rss_bytes), cpu_seconds = EXCLUDED.cpu_seconds
$$;
