-- A notification from somebody else's trigger, on a database without ours: nothing it says is believed but the ids; the
-- row is read again and captured if it is there and neither older than the installation nor than half of the retention
-- (a message whose turn was pruned would be answered twice, A3). `p_message` NULL: a match.
-- Returns the event's id, made now or before (every scheduler hears the same notification), or NULL.
CREATE OR REPLACE FUNCTION bridge.capture_notified(p_match uuid, p_message uuid, p_retention_days double precision) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    c       record;
    h       record;
    v_since timestamptz;
    v_event bigint;
BEGIN
    SELECT greatest(i.installed_at, bridge.now() - make_interval(secs => p_retention_days * 86400 / 2)) INTO v_since
    FROM bridge.installation i;
    SELECT * INTO c FROM bridge.conversation(p_match);
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF p_message IS NULL THEN
        v_event := CASE WHEN c.matched_at >= v_since THEN
            bridge.capture_match(p_match, c.person_id, c.bot_id, c.matched_at) END;
        RETURN coalesce(v_event, (SELECT e.id FROM bridge.events e WHERE e.kind = 'match' AND e.match_id = p_match));
    END IF;
    SELECT * INTO h FROM bridge.history(p_match, ARRAY[p_message], 0);
    v_event := CASE WHEN h.created_at >= v_since THEN
        bridge.capture_message(p_message, p_match, h.sender_id, h.created_at) END;
    -- A statement of its own: the one above may have waited for another scheduler's capture.
    RETURN coalesce(v_event, (SELECT e.id FROM bridge.events e
                              WHERE e.kind = 'message' AND e.message_id = p_message AND e.match_id = p_match));
END
$$;
