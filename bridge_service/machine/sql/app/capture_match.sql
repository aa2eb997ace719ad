-- Notes that a person and a bot matched; returns the event's id, or NULL when exactly one side is not a bot or the
-- match was noted before. Called by the trigger on `matches`, or by the app itself. The event's row is also the lock
-- that keeps the opener and a first message apart (F1). An old match gets a finished opener, as in capture_message.sql.
CREATE OR REPLACE FUNCTION bridge.capture_match(p_match uuid, p_user1 uuid, p_user2 uuid, p_created_at timestamptz)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = 0
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    v_bot   uuid;
    v_turn  bigint;
    v_now   timestamptz;
    v_event bigint;
BEGIN
    SELECT c.bot_id INTO v_bot FROM bridge.conversation(p_match) c;
    IF v_bot IS NULL THEN
        RETURN NULL;
    END IF;
    IF bridge.is_old(p_match, p_created_at) THEN
        v_turn := nextval(pg_get_serial_sequence('bridge.turns', 'id'));
    END IF;
    v_now := bridge.now();
    WITH event AS (
        INSERT INTO bridge.events (kind, match_id, bot_id, turn_id, created_at, captured_at)
        VALUES ('match', p_match, v_bot, v_turn, p_created_at, v_now)
        -- With no target, DO NOTHING would also ignore a primary key that collides, and the match would be lost.
        ON CONFLICT (match_id) WHERE kind = 'match' DO NOTHING
        RETURNING id, turn_id),
    old AS (
        INSERT INTO bridge.turns (id, kind, match_id, bot_id, state, reason, opened_at, ended_at)
        OVERRIDING SYSTEM VALUE
        SELECT e.turn_id, 'initiation', p_match, v_bot, 'cancelled', 'old', v_now, v_now
        FROM event e WHERE e.turn_id IS NOT NULL)
    SELECT e.id INTO v_event FROM event e;
    IF v_event IS NOT NULL AND v_turn IS NULL THEN
        PERFORM bridge.ring('new_match', v_event, json_build_object(
            'id', p_match, 'user1_id', p_user1, 'user2_id', p_user2, 'created_at', p_created_at));
    END IF;
    RETURN v_event;
END
$$;
