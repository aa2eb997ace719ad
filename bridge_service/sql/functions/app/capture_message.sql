-- Notes that a person wrote to a bot; returns the event's id, or NULL when there is nothing to note (a bot's own message,
-- two people, a message captured before). Called by the trigger on `messages`, or by the app itself.
-- It writes one event and changes nothing else (C1); the content is never read.
CREATE OR REPLACE FUNCTION bridge.capture_message(p_message uuid, p_match uuid, p_sender uuid, p_created_at timestamptz)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = 0 AS $$
DECLARE
    v_bot   uuid;
    v_event bigint;
BEGIN
    SELECT c.bot_id INTO v_bot FROM bridge.conversation(p_match) c WHERE c.person_id = p_sender;
    IF v_bot IS NULL OR p_message IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO bridge.events (kind, match_id, message_id, bot_id, sender_id, created_at, captured_at)
    VALUES ('message', p_match, p_message, v_bot, p_sender, p_created_at, bridge.now())
    -- With no target, DO NOTHING would also ignore a primary key that collides, and the message would be lost.
    ON CONFLICT (message_id) WHERE kind = 'message' DO NOTHING
    RETURNING id INTO v_event;
    IF v_event IS NOT NULL THEN
        PERFORM bridge.ring('bot_events', v_event, json_build_object(
            'match_id', p_match, 'bot_id', v_bot, 'sender_id', p_sender, 'message_id', p_message,
            'created_at', p_created_at));
    END IF;
    RETURN v_event;
END
$$;
