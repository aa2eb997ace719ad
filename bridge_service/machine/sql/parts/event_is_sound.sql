-- Whether an event may be stored: the one CHECK of bridge.events. A function as turn_is_sound.sql.
CREATE OR REPLACE FUNCTION bridge.event_is_sound(p_kind text, p_message uuid) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN CASE p_kind
        WHEN 'message' THEN p_message IS NOT NULL
        WHEN 'match' THEN p_message IS NULL
        WHEN 'human' THEN p_message IS NOT NULL  -- written in the bot's name, and not by the bridge
        WHEN 'change' THEN p_message IS NOT NULL  -- the message was edited or deleted
        ELSE false END;
END
$$;
