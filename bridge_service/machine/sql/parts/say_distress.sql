-- Says the bot's DISTRESS_TEXT in the conversation of a turn that covers a message with one of its `distress_words`, at most
-- once a day of the bot's TIMEZONE. It is no reply and covers nothing. If the app's tables refuse the text, the turn goes on
-- without it, and its `last_error` says so. The disclosure comes before it.
--
-- p_at: the `created_at` of the text
--
-- Returns the `created_at` of what the bot says next. A lock that times out is raised.
-- Internal: the caller holds the turn's lock.
CREATE OR REPLACE FUNCTION bridge.say_distress(p_turn bigint, p_match uuid, p_bot uuid, p_at timestamptz) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    p      record;
    v_at   timestamptz;
    v_id   uuid;
    v_said uuid;
BEGIN
    SELECT b.distress_text, b.timezone INTO p FROM bridge.policy(p_bot) b;
    IF p.distress_text IS NULL THEN
        RETURN p_at;
    END IF;
    BEGIN
        INSERT INTO bridge.notices (match_id, bot_id, kind, day, message_id, event_id, said_at)
        SELECT p_match, p_bot, 'distress', (bridge.now() AT TIME ZONE p.timezone)::date, gen_random_uuid(),
               coalesce(max(e.id), (SELECT t.distress FROM bridge.turns t WHERE t.id = p_turn), 0), bridge.now()
        FROM bridge.events e WHERE e.turn_id = p_turn AND (e.kind = 'message') IS TRUE
        ON CONFLICT (match_id, bot_id, kind, day) DO NOTHING
        RETURNING message_id INTO v_id;
        IF v_id IS NULL THEN
            RETURN p_at;
        END IF;
        v_at := bridge.disclose(p_turn, p_match, p_bot, p_at);
        v_said := bridge.say(NULL, v_id, p_match, p_bot, p.distress_text, v_at);
        IF v_said IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'BR002', MESSAGE = 'bridge.deliver returned NULL';
        ELSIF v_said <> v_id THEN
            UPDATE bridge.notices SET message_id = v_said WHERE message_id = v_id;
        END IF;
    EXCEPTION
        WHEN lock_not_available OR deadlock_detected THEN
            RAISE;
        WHEN OTHERS OR assert_failure THEN  -- which OTHERS leaves out
            UPDATE bridge.turns SET last_error = 'the distress text was not said: ' || SQLSTATE WHERE id = p_turn;
            RETURN p_at;
    END;
    RETURN v_at + interval '1 millisecond';
END
$$;
