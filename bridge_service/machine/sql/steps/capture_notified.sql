-- Captures what a notification of the app's own trigger names, where the bridge's triggers are not installed. Only its
-- ids are used. The row is read again, and captured if it is there and not from before the installation. What
-- is_old.sql calls old is captured as the triggers capture it.
--
-- p_message: NULL for a match
-- p_retention_days: unused, for the version before passes it
--
-- Returns the event's id, made now or by another scheduler that heard the same notification, or NULL.
CREATE OR REPLACE FUNCTION bridge.capture_notified(p_match uuid, p_message uuid, p_retention_days double precision DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off AS $$
DECLARE
    c           record;
    h           record;
    v_installed timestamptz := (SELECT i.installed_at FROM bridge.installation i);
    v_event     bigint;
BEGIN
    SELECT * INTO c FROM bridge.conversation(p_match);
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF p_message IS NULL THEN
        v_event := CASE WHEN c.matched_at >= v_installed OR bridge.is_old(p_match, c.matched_at) THEN
            bridge.capture_match(p_match, c.person_id, c.bot_id, c.matched_at) END;
        RETURN coalesce(v_event, (SELECT e.id FROM bridge.events e WHERE e.kind = 'match' AND e.match_id = p_match));
    END IF;
    SELECT * INTO h FROM bridge.history(p_match, ARRAY[p_message], 0);
    v_event := CASE WHEN h.created_at >= v_installed OR bridge.is_old(p_match, h.created_at) THEN
        bridge.capture_message(p_message, p_match, h.sender_id, h.created_at) END;
    -- A statement of its own: the one above may have waited for another scheduler's capture.
    RETURN coalesce(v_event, (SELECT e.id FROM bridge.events e
                              WHERE e.kind = 'message' AND e.message_id = p_message AND e.match_id = p_match));
END
$$;
