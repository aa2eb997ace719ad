-- Says the bot's OVER_LIMIT text in a held turn's conversation, at most once a day. It is no reply and covers nothing.
-- The app's `deliver` gets no turn: one that keeps the turn as its own key would take the reply of the next day for a
-- repetition. If the app's tables refuse the text, the turn is held all the same.
-- Internal: the caller holds the turn's lock.
CREATE OR REPLACE FUNCTION bridge.say_over_limit(p_turn bigint, p_day date) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    t      bridge.turns%ROWTYPE;
    v_text text;
    v_id   uuid;
    v_said uuid;
BEGIN
    SELECT * INTO t FROM bridge.turns WHERE id = p_turn;
    SELECT p.over_limit INTO v_text FROM bridge.policy(t.bot_id) p;
    IF v_text IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO bridge.notices (match_id, bot_id, kind, day, message_id, event_id, said_at)
    SELECT t.match_id, t.bot_id, 'over_limit', p_day, gen_random_uuid(), coalesce(max(e.id), 0), bridge.now()
    FROM bridge.events e WHERE e.turn_id = t.id
    ON CONFLICT (match_id, bot_id, kind, day) DO NOTHING
    RETURNING message_id INTO v_id;
    IF v_id IS NOT NULL THEN
        v_said := bridge.say(NULL, v_id, t.match_id, t.bot_id, v_text,
                             bridge.disclose(t.id, t.match_id, t.bot_id, bridge.stamp(t.id)));
        UPDATE bridge.notices SET message_id = v_said WHERE message_id = v_id AND v_said <> v_id;
    END IF;
EXCEPTION WHEN OTHERS OR assert_failure THEN  -- which OTHERS leaves out
    RETURN;
END
$$;
