-- When a group is quiet: GROUPING_DELAY after its last message, at most GROUPING_MAX after its first (E3).
CREATE OR REPLACE FUNCTION bridge.quiet_at(
    p_first timestamptz, p_last timestamptz, p_delay double precision, p_max double precision) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT least(p_last + make_interval(secs => p_delay), p_first + make_interval(secs => greatest(p_delay, p_max)))
$$;
