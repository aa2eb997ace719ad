-- Notes that a person wrote to a bot, or a human in a bot's name (capture_human.sql); returns the event's id, or NULL when
-- there is nothing to note (a bot's own message, two people, a message captured before). Called by the trigger on
-- `messages`, or by the app itself.
-- It writes one event and changes no row that is there (C1); the content is never read.
--
-- An event that is_old.sql calls old is born with a finished turn of its own, in the same statement. So it is never
-- ungrouped: it rings no bell, joins no group, supersedes nothing, and an import costs the scheduler nothing.
CREATE OR REPLACE FUNCTION bridge.capture_message(p_message uuid, p_match uuid, p_sender uuid, p_created_at timestamptz)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = 0
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    v_bot   uuid;
    v_turn  bigint;
    v_event bigint;
    v_rings boolean;
BEGIN
    -- H1: what `say` inserts just now is the bridge's own. The setting is '' after a commit.
    IF p_message IS NULL OR current_setting('bridge.says', true) = p_match::text THEN
        RETURN NULL;
    END IF;
    SELECT c.bot_id INTO v_bot FROM bridge.conversation(p_match) c WHERE p_sender IN (c.person_id, c.bot_id);
    IF v_bot = p_sender THEN
        RETURN bridge.capture_human(p_message, p_match, v_bot, p_created_at);
    ELSIF v_bot IS NULL THEN
        RETURN NULL;
    END IF;
    IF bridge.is_old(p_match, p_created_at) THEN
        v_turn := nextval(pg_get_serial_sequence('bridge.turns', 'id'));
        WITH event AS (
            INSERT INTO bridge.events (kind, match_id, message_id, bot_id, sender_id, turn_id, created_at, captured_at)
            VALUES ('message', p_match, p_message, v_bot, p_sender, v_turn, p_created_at, bridge.now())
            ON CONFLICT (message_id) WHERE kind = 'message' DO NOTHING
            RETURNING id, captured_at),
        turn AS (
            INSERT INTO bridge.turns (id, kind, match_id, bot_id, state, reason, opened_at, ended_at)
            OVERRIDING SYSTEM VALUE
            SELECT v_turn, 'reply', p_match, v_bot, 'cancelled', 'old', e.captured_at, e.captured_at FROM event e)
        SELECT e.id INTO v_event FROM event e;
        RETURN v_event;
    END IF;
    INSERT INTO bridge.events AS e (kind, match_id, message_id, bot_id, sender_id, created_at, captured_at)
    VALUES ('message', p_match, p_message, v_bot, p_sender, p_created_at, bridge.now())
    -- With no target, DO NOTHING would also ignore a primary key that collides, and the message would be lost.
    ON CONFLICT (message_id) WHERE kind = 'message' DO NOTHING
    RETURNING e.id, CASE current_setting('transaction_isolation') WHEN 'read committed' THEN NOT EXISTS (
        SELECT FROM bridge.events o
        WHERE o.turn_id IS NULL AND o.error IS NULL AND o.id >= e.id - 100 AND o.id < e.id) ELSE true END
    INTO v_event, v_rings;
    IF v_rings THEN  -- as ring.sql, which would be a statement more
        PERFORM bridge.notify('bot_events', json_build_object(
            'match_id', p_match, 'bot_id', v_bot, 'sender_id', p_sender, 'message_id', p_message,
            'created_at', p_created_at)::text);
    END IF;
    RETURN v_event;
END
$$;
