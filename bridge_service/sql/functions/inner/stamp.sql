-- The time that a reply bears: now, or a millisecond after what it answers, if the app dates that later. A clock of the app's
-- that is more than a day ahead is wrong, and is left out. A millisecond, because apps and their clients keep no more.
CREATE OR REPLACE FUNCTION bridge.stamp(p_after timestamptz) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_now timestamptz := bridge.now();
BEGIN
    RETURN CASE WHEN p_after <= v_now + interval '1 day'
                THEN greatest(v_now, p_after + interval '1 millisecond') ELSE v_now END;
END
$$;
