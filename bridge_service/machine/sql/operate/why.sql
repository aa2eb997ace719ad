-- The story of one message: its event, the turn that holds it now, and the earlier ones it passed through, oldest
-- first. A superseded or retried turn keeps in `covers` the events that it was to answer. `pauses` are those of its
-- conversation now (pauses_of.sql). A human's message in a bot's name has a story too. Never the content.
-- Returns NULL for a message that no event knows.
CREATE OR REPLACE FUNCTION bridge.why(p_message uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    e         bridge.events%ROWTYPE;
    v_earlier jsonb;
BEGIN
    SELECT * INTO e FROM bridge.events WHERE kind = 'message' AND message_id = p_message;
    IF NOT FOUND THEN
        SELECT * INTO e FROM bridge.events WHERE kind = 'human' AND message_id = p_message;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    SELECT coalesce(jsonb_agg(bridge.turn_story(t.id) ORDER BY t.id), '[]') INTO v_earlier
    FROM bridge.turns t
    WHERE t.match_id = e.match_id AND t.ended_at IS NOT NULL AND e.id = ANY (t.covers) AND t.id IS DISTINCT FROM e.turn_id;
    RETURN jsonb_build_object(
        'message_id', e.message_id, 'event_id', e.id, 'kind', e.kind, 'match_id', e.match_id, 'bot_id', e.bot_id, 'sender_id', e.sender_id,
        'created_at', e.created_at::text,  -- as text: it may be any time (C3)
        'captured_at', e.captured_at, 'error', e.error, 'turn', bridge.turn_story(e.turn_id), 'earlier', v_earlier,
        'pauses', bridge.pauses_of(e.match_id, e.bot_id));
END
$$;
