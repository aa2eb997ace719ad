-- Writes a row of bridge.minutes for each minute that is over and has none yet, the oldest first, at most `p_limit`.
--
-- A minute is over 30 s after its end: a step commits within its `statement_timeout` of 30 s, so no turn that ended in
-- that minute becomes visible later. Minutes without a scheduler are made up for, at most a day of them. Any number of
-- schedulers may call it: the first row of a minute stays.
--
-- A call of a model that is not settled by then counts with what is reserved for it.
--
-- Returns how many rows it wrote; call again while it returns `p_limit`.
CREATE OR REPLACE FUNCTION bridge.close_minutes(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET lock_timeout = '300ms' SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_over  timestamptz := date_trunc('minute', bridge.now() - interval '30 seconds', 'UTC');
    v_from  timestamptz := greatest((SELECT max(m.minute) FROM bridge.minutes m) + interval '1 minute',
                                    v_over - interval '1 day');
    v_count integer;
BEGIN
    INSERT INTO bridge.minutes (minute, answered, lateness_p50, lateness_p99)
    SELECT s.minute, t.answered, t.late[1], t.late[2]
    FROM generate_series(v_from, least(v_over, v_from + make_interval(mins => p_limit)) - interval '1 minute',
                         interval '1 minute') AS s (minute)
    CROSS JOIN LATERAL (
        SELECT count(*) AS answered,
               percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (
                   ORDER BY greatest(extract(epoch FROM r.answered_at - coalesce(r.part_at, r.deliver_at))::double precision, 0)) AS late
        FROM bridge.turns r
        WHERE r.ended_at >= s.minute AND r.ended_at < s.minute + interval '1 minute'
          AND bridge.answers(r.kind) AND r.state IN ('answered', 'cancelled')  -- as the index has it
          AND r.state = 'answered') t
    ON CONFLICT (minute) DO NOTHING;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF to_regclass('bridge.calls') IS NOT NULL THEN
        UPDATE bridge.minutes m
        SET tokens = (SELECT coalesce(sum(coalesce(c.tokens_in + c.tokens_out, c.reserved_in + c.reserved_out)), 0)
                      FROM bridge.calls c
                      WHERE c.begun_at >= m.minute AND c.begun_at < m.minute + interval '1 minute')
        WHERE m.minute >= v_from AND m.tokens IS NULL;
    END IF;
    RETURN v_count;
END
$$;
