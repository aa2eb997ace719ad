-- Brings back what is owed (owed.sql) and what was set aside, in a span of the app's times. Messages that no event
-- knows are captured in the order of the app's times, at most p_limit a call; events that are known are given back to
-- be grouped. A message that is_old.sql calls old is captured, and not answered. An event that was set aside and is old
-- by now ends the same way; if its message was answered meanwhile for the bot, it ends as `taken_over`.
--
-- p_since, p_until: by the app's times (of what was set aside, by its capture); NULL: as far back as `verify` looks,
--   until now
-- p_match: NULL for every conversation
-- p_dry: only counts, without a limit
--
-- Returns {outcome: replayed, found, old, ignored, captured, given_back}. Of `found`, `old` are from before the
-- installation and `ignored` are kept without an answer. Call again while `found` reaches the limit and something was
-- captured.
CREATE OR REPLACE FUNCTION bridge.replay(
    p_since timestamptz, p_until timestamptz, p_match uuid, p_retention_days double precision, p_limit integer,
    p_dry boolean)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET work_mem = '64MB'
SET lock_timeout = '300ms' AS $$
DECLARE
    v_now       timestamptz := bridge.now();
    v_since     timestamptz := coalesce(p_since, v_now - make_interval(secs => p_retention_days * 86400 * 0.9));
    v_until     timestamptz := least(p_until, v_now);
    v_installed timestamptz := (SELECT i.installed_at FROM bridge.installation i);
    m           record;
    v_turn      bigint;
    v_found     bigint := 0;
    v_old       bigint := 0;
    v_ignored   bigint := 0;
    v_captured  bigint := 0;
    v_back      bigint := 0;
BEGIN
    PERFORM bridge.assert_read_committed();
    FOR m IN
        SELECT e.id, e.kind, e.match_id, e.bot_id, e.created_at,
               CASE WHEN bridge.is_old(e.match_id, e.created_at) THEN 'old'
                    WHEN e.kind = 'message' AND e.created_at <= bridge.answered_until(e.match_id, e.sender_id)
                        THEN 'taken_over' END AS reason
        FROM bridge.events e
        WHERE e.error IS NOT NULL AND e.turn_id IS NULL AND e.captured_at >= v_since AND e.captured_at < v_until
          AND (p_match IS NULL OR e.match_id = p_match)
        ORDER BY e.id FOR NO KEY UPDATE
    LOOP
        v_back := v_back + 1;
        CONTINUE WHEN p_dry;
        v_turn := NULL;
        IF m.reason IS NOT NULL THEN
            INSERT INTO bridge.turns (kind, match_id, bot_id, state, reason, opened_at, ended_at)
            VALUES (CASE m.kind WHEN 'match' THEN 'initiation' ELSE 'reply' END,
                    m.match_id, m.bot_id, 'cancelled', m.reason, v_now, v_now)
            RETURNING id INTO v_turn;
        END IF;
        UPDATE bridge.events SET error = NULL, turn_id = v_turn WHERE id = m.id;
    END LOOP;

    FOR m IN
        SELECT o.*, bridge.is_old(o.match_id, o.created_at) AS is_old
        FROM bridge.owed(v_since, v_until, p_match) o
        ORDER BY o.event_id, o.created_at, o.message_id
        LIMIT CASE WHEN p_dry THEN NULL ELSE p_limit END
    LOOP
        IF m.event_id IS NOT NULL THEN
            -- The bot may be another one by now. Two replays at once give it back once.
            UPDATE bridge.events e SET turn_id = NULL, grouped_at = NULL, bot_id = m.bot_id, sender_id = m.sender_id
            FROM bridge.turns t
            WHERE e.id = m.event_id AND t.id = e.turn_id AND t.state = 'cancelled' AND t.reason = 'gone' AND NOT p_dry;
            v_back := v_back + (FOUND OR p_dry)::integer;
            CONTINUE;
        END IF;
        v_found := v_found + 1;
        v_old := v_old + (m.created_at < v_installed)::integer;
        v_ignored := v_ignored + m.is_old::integer;
        IF NOT p_dry AND bridge.capture_message(m.message_id, m.match_id, m.sender_id, m.created_at) IS NOT NULL THEN
            v_captured := v_captured + 1;
        END IF;
    END LOOP;
    RETURN jsonb_build_object(
        'outcome', 'replayed', 'found', v_found, 'old', v_old, 'ignored', v_ignored, 'captured', v_captured,
        'given_back', v_back);
END
$$;
