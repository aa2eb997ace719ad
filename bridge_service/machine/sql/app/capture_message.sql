-- Notes that a person wrote to a bot; returns the event's id, or NULL when there is nothing to note (a bot's own message,
-- two people, a message captured before). Called by the trigger on `messages`, or by the app itself.
-- It writes one event and changes no row that is there (C1); the content is never read.
--
-- An event that is_old.sql calls old is born with a finished turn of its own, in the same statement. So it is never
-- ungrouped: it rings no bell, joins no group, supersedes nothing, and an import costs the scheduler nothing.
CREATE OR REPLACE FUNCTION bridge.capture_message(p_message uuid, p_match uuid, p_sender uuid, p_created_at timestamptz)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = 0 AS $$
DECLARE
    v_bot   uuid;
    v_turn  bigint;
    v_now   timestamptz;
    v_event bigint;
BEGIN
    SELECT c.bot_id INTO v_bot FROM bridge.conversation(p_match) c WHERE c.person_id = p_sender;
    IF v_bot IS NULL OR p_message IS NULL THEN
        RETURN NULL;
    END IF;
    IF bridge.is_old(p_match, p_created_at) THEN
        v_turn := nextval(pg_get_serial_sequence('bridge.turns', 'id'));
    END IF;
    v_now := bridge.now();
    WITH event AS (
        INSERT INTO bridge.events (kind, match_id, message_id, bot_id, sender_id, turn_id, created_at, captured_at)
        VALUES ('message', p_match, p_message, v_bot, p_sender, v_turn, p_created_at, v_now)
        -- With no target, DO NOTHING would also ignore a primary key that collides, and the message would be lost.
        ON CONFLICT (message_id) WHERE kind = 'message' DO NOTHING
        RETURNING id, turn_id),
    old AS (
        INSERT INTO bridge.turns (id, kind, match_id, bot_id, state, reason, opened_at, ended_at)
        OVERRIDING SYSTEM VALUE
        SELECT e.turn_id, 'reply', p_match, v_bot, 'cancelled', 'old', v_now, v_now FROM event e WHERE e.turn_id IS NOT NULL)
    SELECT e.id INTO v_event FROM event e;
    IF v_event IS NOT NULL AND v_turn IS NULL THEN
        PERFORM bridge.ring('bot_events', v_event, json_build_object(
            'match_id', p_match, 'bot_id', v_bot, 'sender_id', p_sender, 'message_id', p_message,
            'created_at', p_created_at));
    END IF;
    RETURN v_event;
END
$$;
