-- How many turns stand where, and how long the longest waiting person has waited: `python -m bridge_service status`.
-- The same figures as the console's (see metrics.sql), so that the two never disagree.
--
-- p_delay: unused, for the version before passes it
--
-- Returns {open, queued, composing, typing, overdue, dead, oldest_unanswered_seconds}; `overdue`: due and not taken.
CREATE OR REPLACE FUNCTION bridge.status(p_delay double precision DEFAULT NULL) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'open', m -> 'open', 'queued', m -> 'queued', 'composing', m -> 'composing', 'typing', m -> 'typing',
        'overdue', m -> 'overdue', 'dead', m -> 'dead',
        'oldest_unanswered_seconds', coalesce(round(greatest(
            extract(epoch FROM bridge.now()) - (m ->> 'oldest_unanswered_at')::numeric, 0), 3), 0))
    FROM bridge.metrics() m
$$;
