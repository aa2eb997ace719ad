-- Marks the conversation of a turn that covers a message with one of the bot's `distress_words`, and the turn itself.
-- Internal: the caller holds the turn's lock.
--
-- p_token: of the claim
-- p_messages: those that the turn covers, as task.sql has them
-- p_words: words and phrases, found as last_with_words.sql says
--
-- Returns {distress: the newest such message's event, match_id}; {} if there is none, or if an earlier claim has found it. A
-- claim that is repeated with the same token returns it again.
CREATE OR REPLACE FUNCTION bridge.note_distress(t bridge.turns, p_token uuid, p_messages jsonb, p_words text[]) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_last  integer := bridge.last_with_words(
        ARRAY(SELECT m.line ->> 'content' FROM jsonb_array_elements(p_messages) WITH ORDINALITY AS m (line, n) ORDER BY m.n), p_words);
    v_event bigint;
    v_at    timestamptz;
BEGIN
    SELECT e.id, e.captured_at INTO v_event, v_at FROM bridge.events e
    WHERE e.kind = 'message' AND e.message_id = (p_messages -> (v_last - 1) ->> 'message_id')::uuid;
    IF NOT FOUND THEN
        RETURN '{}';
    END IF;
    UPDATE bridge.turns SET distress = v_event WHERE id = t.id;
    INSERT INTO bridge.distress AS known (match_id, bot_id, first_at, last_at, event_id, token)
    VALUES (t.match_id, t.bot_id, v_at, v_at, v_event, p_token)
    ON CONFLICT (match_id, bot_id) DO UPDATE
    SET last_at = EXCLUDED.last_at, event_id = EXCLUDED.event_id, token = EXCLUDED.token
    WHERE known.event_id < EXCLUDED.event_id OR known.token = EXCLUDED.token;
    RETURN CASE WHEN FOUND THEN jsonb_build_object('distress', v_event, 'match_id', t.match_id) ELSE '{}' END;
END
$$;
