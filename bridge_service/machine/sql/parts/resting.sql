-- Why a bot rests in a turn's conversation, or all NULL: it sleeps (`hours`, Q1), or it has said LIMIT_REPLIES_HOUR replies there
-- within the last hour (`limit_replies`), so that two programs that answer each other do not go on without end.
--
-- ruling: of `hours` the wake-up in seconds since the epoch, by which wake_turns.sql finds the turns that wait for it; of
--   `limit_replies` the limit
CREATE OR REPLACE FUNCTION bridge.resting(p_turn bigint, OUT cause text, OUT ruling bigint, OUT until timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
DECLARE
    t       record;
    v_now   timestamptz := bridge.now();
    v_limit integer;
BEGIN
    SELECT o.bot_id, o.match_id INTO t FROM bridge.turns o WHERE o.id = p_turn;
    SELECT r.asleep_until INTO until FROM bridge.rest_of(ARRAY[t.bot_id], v_now) r WHERE bridge.has_hours();
    IF until IS NOT NULL THEN
        cause := 'hours';
        ruling := extract(epoch FROM until);
        RETURN;
    END IF;
    SELECT p.limit_replies_hour INTO v_limit FROM bridge.policy(t.bot_id) p;
    IF v_limit <= (SELECT count(*) FROM (
                       SELECT FROM bridge.turns r
                       WHERE r.match_id = t.match_id AND r.ended_at > v_now - interval '1 hour'
                         AND (r.state = 'answered' AND (bridge.answers(r.kind) OR r.follows IS NOT NULL)) IS TRUE
                         AND r.reply_message_id IS NOT NULL
                       LIMIT v_limit) said) THEN
        cause := 'limit_replies';
        ruling := v_limit;
        until := v_now + interval '1 hour';
    END IF;
END
$$;
