-- The `created_at` of a turn's message in the app: now, or a millisecond after the newest `created_at` that it answers
-- (an opener: its match's), if that is later. So a reply follows its question even if the app's clock is ahead. A time
-- that is more than a day ahead is not used. A millisecond, because many apps and their clients keep no less.
CREATE OR REPLACE FUNCTION bridge.stamp(p_turn bigint) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_now timestamptz := bridge.now();
BEGIN
    RETURN greatest(v_now, (
        SELECT max(e.created_at) + interval '1 millisecond' FROM bridge.events e
        WHERE e.turn_id = p_turn AND (e.created_at <= v_now + interval '1 day') IS TRUE AND isfinite(e.created_at)));
END
$$;
