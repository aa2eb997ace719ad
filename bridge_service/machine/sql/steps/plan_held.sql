-- Held turns whose limit was raised or taken away, or whose pause is over, are due now, at most `p_limit` of each bot a call
-- (Q0). The others stay: they are due when their day or hour is over. Turns that wait for a bot's wake-up follow its hours
-- (plan_hours.sql). One index probe a bot, and none while no turn is held.
-- Its pass also makes the follow-ups whose time has come (plan_follow_ups.sql), by one probe more.
CREATE OR REPLACE FUNCTION bridge.plan_held(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
    v_now   timestamptz := bridge.now();
    v_bot   uuid;
    v_count integer := 0;
    v_some  integer;
    p       record;
BEGIN
    SET LOCAL synchronous_commit = off;  -- lost in a crash, it is done again
    v_count := bridge.plan_hours(p_limit);
    PERFORM bridge.plan_follow_ups(p_limit);
    LOOP
        SELECT t.bot_id INTO v_bot FROM bridge.turns t
        WHERE t.state = 'open' AND t.held IS NOT NULL AND (v_bot IS NULL OR t.bot_id > v_bot)
          AND t.held NOT IN ('hours', 'waking')
        ORDER BY t.bot_id LIMIT 1;
        EXIT WHEN NOT FOUND;
        SELECT * INTO p FROM bridge.policy(v_bot);
        WITH freed AS (
            SELECT t.id FROM bridge.turns t
            WHERE t.state = 'open' AND t.bot_id = v_bot AND t.due_at > v_now
              AND (t.held = 'limit_calls' AND (p.limit_calls_person_day <= t.held_limit) IS NOT TRUE
                   OR t.held = 'limit_tokens' AND (p.limit_tokens_bot_day <= t.held_limit) IS NOT TRUE
                   OR t.held = 'limit_replies' AND (p.limit_replies_hour <= t.held_limit) IS NOT TRUE
                   OR t.held = 'paused' AND bridge.paused_until(t.match_id, t.bot_id) IS NULL)
              AND t.held IS NOT NULL
            LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED)
        UPDATE bridge.turns t SET due_at = v_now, held = NULL, held_until = v_now
        FROM freed WHERE t.id = freed.id;
        GET DIAGNOSTICS v_some = ROW_COUNT;
        v_count := v_count + v_some;
    END LOOP;
    RETURN v_count;
END
$$;
