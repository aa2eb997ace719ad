-- When a bot wakes that sleeps at `p_at`; NULL: it is awake then (Q1).
--
-- p_hours, p_hours_weekend: HH:MM-HH:MM; NULL: none. A window belongs to the day on which it begins.
--
-- A window is two instants, which are made of its local date, and the bot sleeps while start <= t < end. `AT TIME ZONE` on the
-- result would turn the order round in the nights of the clock change. Windows may adjoin or overlap, so the search goes on at
-- each end. A chain of more than a week cannot be, since the two ends of a window differ; the bot is awake then.
CREATE OR REPLACE FUNCTION bridge.quiet_until(p_hours text, p_hours_weekend text, p_timezone text, p_at timestamptz)
RETURNS timestamptz
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_until timestamptz := p_at;
    v_end   timestamptz;
BEGIN
    IF p_hours IS NULL AND p_hours_weekend IS NULL THEN
        RETURN NULL;
    END IF;
    WHILE v_until <= p_at + interval '7 days' LOOP
        SELECT max(w.ends) INTO v_end
        FROM (SELECT d.day, CASE WHEN extract(isodow FROM d.day) >= 6 THEN p_hours_weekend ELSE p_hours END AS hours
              FROM (SELECT (v_until AT TIME ZONE p_timezone)::date + n.days AS day FROM (VALUES (-1), (0), (1)) AS n (days)) d) h
        CROSS JOIN LATERAL (
            SELECT (h.day + left(h.hours, 5)::time) AT TIME ZONE p_timezone AS starts,
                   (h.day + (right(h.hours, 5) < left(h.hours, 5))::integer + right(h.hours, 5)::time)
                       AT TIME ZONE p_timezone AS ends) w
        WHERE w.starts <= v_until AND v_until < w.ends;
        IF v_end IS NULL THEN
            RETURN nullif(v_until, p_at);
        END IF;
        v_until := v_end;
    END LOOP;
    RETURN NULL;
END
$$;
