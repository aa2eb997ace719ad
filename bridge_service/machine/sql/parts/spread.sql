-- Count, percentiles and maximum of some durations, given in seconds, in milliseconds: {count, p50, p95, p99, max};
-- nulls where there are none.
CREATE OR REPLACE FUNCTION bridge.spread(p_seconds double precision[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'count', p.count, 'p50', round((1000 * p.at[1])::numeric, 1), 'p95', round((1000 * p.at[2])::numeric, 1),
        'p99', round((1000 * p.at[3])::numeric, 1), 'max', round((1000 * p.at[4])::numeric, 1))
    FROM (SELECT count(*), percentile_cont(ARRAY[0.5, 0.95, 0.99, 1]) WITHIN GROUP (ORDER BY s.seconds) AS at
          FROM unnest(p_seconds) AS s (seconds)) p
$$;
