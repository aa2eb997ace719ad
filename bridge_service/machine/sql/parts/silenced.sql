-- The part of a delivery's last look that asks whether the bot still speaks for itself in this match: no human has spoken for
-- it (H2), nothing pauses it (Q0), and it is on.
--
-- Under the lock of the match's event row each message in the bot's name has committed, and the look finds it, or waits until
-- this delivery has committed. That message holds the row FOR KEY SHARE, as a message before an opener does (F1). So this
-- lock is FOR UPDATE: a pair of SHARE and NO KEY UPDATE would give a REPEATABLE READ app 40001 once the row is grouped. The
-- row is never changed here, either. It is not waited for, so the caller may hold the turn. A match from before the
-- installation has no row, and an advisory lock instead. A bot with TAKEOVER_PAUSE=0 needs no lock.
--
-- Returns NULL if it speaks for itself, else what the step returns: {outcome: later | nothing | held | cancelled, ...}.
--   `nothing`: a scheduler has to group the human's message first, which ends this turn (take_over.sql).
-- Internal: the caller holds the turn's lock, and of an opener the match's event.
CREATE OR REPLACE FUNCTION bridge.silenced(p_turn bigint, p_kind text, p_match uuid, p_bot uuid) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_pause  double precision;
    v_active boolean;
    v_locked boolean;
    v_spoken boolean;
    v_paused boolean;
    v_due    timestamptz;
BEGIN
    SELECT p.takeover_pause, p.active INTO v_pause, v_active FROM bridge.policy(p_bot) p;
    IF NOT v_active THEN
        RETURN bridge.cancel_turn(p_turn, 'off');
    END IF;
    IF v_pause > 0 AND bridge.answers(p_kind) THEN
        PERFORM FROM bridge.events e WHERE e.kind = 'match' AND e.match_id = p_match FOR UPDATE SKIP LOCKED;
        v_locked := FOUND;
        IF NOT v_locked AND NOT EXISTS (SELECT FROM bridge.events e WHERE e.kind = 'match' AND e.match_id = p_match) THEN
            BEGIN  -- several matches share an advisory lock, so it is waited for
                PERFORM pg_advisory_xact_lock(bridge.old_match_key(p_match));
                v_locked := true;
            EXCEPTION WHEN lock_not_available THEN NULL;
            END;
        END IF;
        IF NOT v_locked THEN
            UPDATE bridge.turns SET due_at = bridge.now() + interval '1 second' WHERE id = p_turn
            RETURNING due_at INTO v_due;
            PERFORM bridge.ring_due(p_turn, v_due);
            RETURN '{"outcome": "later"}';
        END IF;
    END IF;
    -- A statement of its own, after the lock.
    SELECT EXISTS (SELECT FROM bridge.ungrouped_events(p_match) u WHERE u.kind = 'human'),
           EXISTS (SELECT FROM bridge.pauses s WHERE s.match_id = p_match OR s.bot_id = p_bot)
    INTO v_spoken, v_paused;
    IF v_spoken THEN
        UPDATE bridge.turns SET due_at = bridge.now() + interval '1 second' WHERE id = p_turn
        RETURNING due_at INTO v_due;
        PERFORM bridge.ring_due(p_turn, v_due);
        RETURN '{"outcome": "nothing", "state": "typing", "early": true}';
    ELSIF v_paused AND bridge.paused_until(p_match, p_bot) IS NOT NULL THEN
        RETURN bridge.hold_turn(p_turn);
    END IF;
    RETURN NULL;
END
$$;
