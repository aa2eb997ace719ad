-- Brings the indicators that are due into line with their turns: on while the turn is `typing` and BOT_TYPING is true,
-- renewed every 4 s, else off and forgotten. So what a crash, a lost lease or a lock left on goes off here.
--
-- p_limit: how many a call looks at; it ends after 50 ms all the same, since an app's transaction may wait for these rows
--
-- A row that another scheduler looks at is skipped. A turn is read and not locked: no delivery waits for an indicator. If
-- a delivery ends the turn in that instant, its indicator goes off at the next look, at most 4 s later (I-1).
--
-- Returns the seconds until the next look, below 0 if it is due; NULL if none is planned.
CREATE OR REPLACE FUNCTION bridge.show_due(p_limit integer) RETURNS double precision
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_sort = off SET jit = off AS $$
DECLARE
    v_now   timestamptz := bridge.now();
    v_until timestamptz := v_now + interval '50 milliseconds';
    v_has   boolean := bridge.has_typing();
    v_on    boolean;
    v_done  boolean;
    i       bridge.indicators%ROWTYPE;
    t       record;
BEGIN
    SET LOCAL synchronous_commit = off;  -- lost in a crash, it is done again
    FOR i IN
        SELECT d.* FROM bridge.indicators d WHERE d.next_at <= v_now ORDER BY d.next_at LIMIT p_limit
        FOR UPDATE SKIP LOCKED
    LOOP
        -- In a later statement than the lock: what ended before is seen.
        SELECT o.state, o.typing_at, o.ended_at INTO t FROM bridge.turns o WHERE o.id = i.turn_id;
        v_on := v_has AND (t.state = 'typing' AND t.typing_at IS NOT NULL) IS TRUE
            AND (SELECT p.bot_typing FROM bridge.policy(i.bot_id) p);
        IF v_on AND t.typing_at > v_now THEN  -- the turn was composed again
            v_done := i.on_since IS NULL OR bridge.indicate(i.match_id, i.bot_id, false);
            UPDATE bridge.indicators d
            SET next_at = CASE WHEN v_done THEN t.typing_at ELSE v_now + interval '1 second' END,
                on_since = CASE WHEN v_done IS NOT TRUE THEN d.on_since END
            WHERE d.turn_id = i.turn_id;
        ELSIF v_on THEN
            v_done := bridge.indicate(i.match_id, i.bot_id, true);
            UPDATE bridge.indicators d
            SET next_at = v_now + make_interval(secs => CASE WHEN v_done IS FALSE THEN 1 ELSE 4 END),
                on_since = coalesce(d.on_since, CASE WHEN v_done THEN v_now END)
            WHERE d.turn_id = i.turn_id;
        ELSE
            v_done := i.on_since IS NULL OR NOT v_has OR bridge.indicate(i.match_id, i.bot_id, false);
            -- A table that takes nothing any more, ten minutes long, is not asked again.
            IF v_done OR coalesce(t.ended_at, '-infinity') < v_now - interval '10 minutes'
                    AND t.state IS DISTINCT FROM 'typing' THEN
                DELETE FROM bridge.indicators d WHERE d.turn_id = i.turn_id;
            ELSE
                UPDATE bridge.indicators d SET next_at = v_now + interval '1 second' WHERE d.turn_id = i.turn_id;
            END IF;
        END IF;
        EXIT WHEN v_done IS NULL OR bridge.now() > v_until;
    END LOOP;
    RETURN (SELECT extract(epoch FROM d.next_at - bridge.now()) FROM bridge.indicators d ORDER BY d.next_at LIMIT 1);
END
$$;
