-- Notes that a human, or another program of the app, wrote in a bot's name; returns the event's id, or NULL when there is
-- nothing to note: TAKEOVER_PAUSE is 0, the message is history, or the bridge said it (H1). Like any capture it writes an
-- event and changes no row (C1). It holds the match until the app's transaction ends (H2); the BEFORE trigger took
-- that lock already, except in a match from before the installation.
-- Internal: capture_message has found that `p_bot` is the sender.
CREATE OR REPLACE FUNCTION bridge.capture_human(p_message uuid, p_match uuid, p_bot uuid, p_created_at timestamptz)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = 0
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    v_event bigint;
BEGIN
    IF (SELECT p.takeover_pause > 0 FROM bridge.policy(p_bot) p) IS NOT TRUE OR bridge.is_old(p_match, p_created_at)
       OR bridge.is_said_by_us(p_message, p_match) THEN
        RETURN NULL;
    END IF;
    PERFORM bridge.share_match(p_match);
    INSERT INTO bridge.events (kind, match_id, message_id, bot_id, sender_id, created_at, captured_at)
    VALUES ('human', p_match, p_message, p_bot, p_bot, p_created_at, bridge.now())
    ON CONFLICT (message_id) WHERE kind = 'human' DO NOTHING
    RETURNING id INTO v_event;
    IF v_event IS NOT NULL THEN
        PERFORM bridge.ring('bot_events', v_event, json_build_object(
            'match_id', p_match, 'bot_id', p_bot, 'sender_id', p_bot, 'message_id', p_message, 'created_at', p_created_at));
    END IF;
    RETURN v_event;
END
$$;
