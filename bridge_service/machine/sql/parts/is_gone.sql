-- Whether nothing is left to answer: the conversation with this bot is gone or over, or all of these messages are gone
-- or withdrawn (D5).
-- p_messages: NULL for an opener, which answers none
CREATE OR REPLACE FUNCTION bridge.is_gone(p_match uuid, p_bot uuid, p_messages uuid[]) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
BEGIN
    PERFORM FROM bridge.conversation(p_match) WHERE bot_id = p_bot AND bridge.ended(p_match) IS NOT TRUE;
    IF NOT FOUND THEN
        RETURN true;
    ELSIF p_messages IS NULL THEN
        RETURN false;
    END IF;
    PERFORM FROM bridge.history(p_match, p_messages, 0) h WHERE h.covered AND bridge.withdrawn(h.message_id) IS NOT TRUE;
    RETURN NOT FOUND;
END
$$;
