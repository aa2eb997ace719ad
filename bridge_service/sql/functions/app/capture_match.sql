-- Notes that a person and a bot matched; returns the event's id, or NULL when exactly one side is not a bot or the match
-- was noted before. Called by the trigger on `matches`, or by the app itself. The event's row is also the lock that
-- keeps the opener and a first message apart (F1).
CREATE OR REPLACE FUNCTION bridge.capture_match(p_match uuid, p_user1 uuid, p_user2 uuid, p_created_at timestamptz)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = 0 AS $$
DECLARE
    v_bot   uuid;
    v_event bigint;
BEGIN
    SELECT c.bot_id INTO v_bot FROM bridge.conversation(p_match) c;
    IF v_bot IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO bridge.events (kind, match_id, bot_id, created_at, captured_at)
    VALUES ('match', p_match, v_bot, p_created_at, bridge.now())
    -- With no target, DO NOTHING would also ignore a primary key that collides, and the match would be lost.
    ON CONFLICT (match_id) WHERE kind = 'match' DO NOTHING
    RETURNING id INTO v_event;
    IF v_event IS NOT NULL THEN
        PERFORM bridge.ring('new_match', v_event, json_build_object(
            'id', p_match, 'user1_id', p_user1, 'user2_id', p_user2, 'created_at', p_created_at));
    END IF;
    RETURN v_event;
END
$$;
