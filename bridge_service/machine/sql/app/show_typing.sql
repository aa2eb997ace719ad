-- Switches a bot's indicator on or off, or renews one that is on. Returns false if another session holds the bot's row: it
-- is not waited for, and the bridge calls again (I-1).
-- An app with another table replaces this function, is_typing and has_typing; `migrate` leaves replaced ones alone.
--
-- The app's own triggers fire here under the search path by which `migrate` found the app's tables, as in deliver.sql.
-- Deferred ones fire here too, or what they raise would take the reply of this transaction with it.
CREATE OR REPLACE FUNCTION bridge.show_typing(p_match uuid, p_bot uuid, p_on boolean) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET enable_seqscan FROM CURRENT SET jit FROM CURRENT AS $$
DECLARE
    v_now timestamptz := bridge.now();
BEGIN
    PERFORM FROM {app}.typing_events e
    WHERE e.match_id = p_match AND e.user_id = p_bot FOR NO KEY UPDATE SKIP LOCKED;
    IF FOUND THEN
        UPDATE {app}.typing_events e
        SET is_typing = p_on, updated_at = v_now,
            started_at = CASE WHEN p_on AND e.is_typing IS NOT TRUE THEN v_now ELSE e.started_at END
        WHERE e.match_id = p_match AND e.user_id = p_bot AND (p_on OR e.is_typing IS NOT FALSE);
    ELSIF EXISTS (SELECT FROM {app}.typing_events e WHERE e.match_id = p_match AND e.user_id = p_bot) THEN
        RETURN false;
    ELSIF p_on THEN
        INSERT INTO {app}.typing_events (match_id, user_id, is_typing, started_at, updated_at)
        VALUES (p_match, p_bot, true, v_now, v_now);
    END IF;
    SET CONSTRAINTS ALL IMMEDIATE;
    RETURN true;
END
$$;
