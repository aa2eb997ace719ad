-- - --> open: makes the follow-ups whose time has come, at most `p_limit` a call, and returns how many it made (F3). Until then a
-- follow-up is no turn but the `follow_up_at` of the reply, so a conversation that goes on leaves no row. That a follow-up is made
-- and that its reply waits for none any more are one transaction, and a reply has one by a unique index.
--
-- The policy is read again here: a FOLLOW_UP_AFTER that was raised puts the follow-up off, and one that was taken away ends it.
-- What rests or pauses now is held as any turn (Q0). An error of the app's tables puts one conversation off, and no other.
CREATE OR REPLACE FUNCTION bridge.plan_follow_ups(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
    v_now   timestamptz := bridge.now();
    v_at    timestamptz;
    v_count integer := 0;
    r       record;
    p       record;
BEGIN
    FOR r IN
        SELECT t.id, t.match_id, t.bot_id, t.ended_at FROM bridge.turns t
        WHERE t.state = 'answered' AND t.follow_up_at <= v_now
        ORDER BY t.follow_up_at LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        SELECT b.follow_up_after, b.active INTO p FROM bridge.policy(r.bot_id) b;
        v_at := r.ended_at + make_interval(secs => p.follow_up_after);
        BEGIN
            IF p.active AND v_at IS NOT NULL AND NOT bridge.went_on(r.id) THEN
                IF v_at <= v_now THEN
                    INSERT INTO bridge.turns (kind, match_id, bot_id, state, opened_at, due_at, follow_up_at, follows)
                    VALUES ('follow_up', r.match_id, r.bot_id, 'open', v_now, v_now, v_at, r.id)
                    ON CONFLICT (follows) WHERE kind = 'follow_up' DO NOTHING;
                    v_count := v_count + 1;
                    v_at := NULL;
                END IF;
            ELSE
                v_at := NULL;
            END IF;
        EXCEPTION WHEN OTHERS OR assert_failure THEN  -- which OTHERS leaves out
            v_at := v_now + interval '1 minute';
        END;
        UPDATE bridge.turns SET follow_up_at = v_at WHERE id = r.id;
    END LOOP;
    RETURN v_count;
END
$$;
