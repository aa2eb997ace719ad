-- Notes that a person's message was edited, deleted or withdrawn; returns the event's id, or NULL if no turn can still
-- read the message. Called by the triggers on `messages`, or by the app itself. An app that marks deleted messages in a
-- column of its own lays one more trigger there, which calls bridge.after_change().
--
-- It writes one event of kind `change` and changes no row that is there (C1). One statement reads the message's event and
-- its turn: of two statements the second could see the turn ended and its events moved, and the change would be lost. A
-- turn that is dead, `gone` or `refused` may be tried again, so a change of its message counts, too (X1).
CREATE OR REPLACE FUNCTION bridge.capture_change(p_message uuid) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = 0
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    m       record;
    v_event bigint;
BEGIN
    SELECT e.match_id, e.bot_id, e.sender_id, e.created_at INTO m
    FROM bridge.events e
    WHERE e.kind = 'message' AND e.message_id = p_message
      AND coalesce((SELECT (t.ended_at IS NULL OR t.state = 'dead' OR t.reason IN ('gone', 'refused')) IS TRUE
                    FROM bridge.turns t WHERE t.id = e.turn_id), true);
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO bridge.events (kind, match_id, message_id, bot_id, sender_id, captured_at)
    VALUES ('change', m.match_id, p_message, m.bot_id, m.sender_id, bridge.now())
    RETURNING id INTO v_event;
    PERFORM bridge.ring('bot_events', v_event, json_build_object(
        'match_id', m.match_id, 'bot_id', m.bot_id, 'sender_id', m.sender_id, 'message_id', p_message,
        'created_at', m.created_at));
    RETURN v_event;
END
$$;
