-- The story of one conversation, for the console: by its match, or by a message in it. Ids and times, no text.
-- Everything is found by index, and at most `p_limit` finished turns and as many events are told.
--
-- p_id: of a match, or of a message that the bridge captured
--
-- Returns {match_id, turns: [see turn_lines.sql, ...], events: [{event_id, kind, message_id, turn_id, captured_at,
--   grouped_at, set_aside}, ...]}, oldest first, and what standing.sql returns; NULL if the bridge knows neither such a match nor such a message.
CREATE OR REPLACE FUNCTION bridge.story(p_id uuid, p_limit integer) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_match  uuid := coalesce((SELECT e.match_id FROM bridge.events e WHERE e.kind = 'message' AND e.message_id = p_id), p_id);
    v_turns  bigint[];
    v_events jsonb;
BEGIN
    SELECT array_agg(f.id) INTO v_turns
    FROM (SELECT t.id FROM bridge.turns t WHERE t.match_id = v_match AND bridge.is_waiting(t.kind, t.state)
          UNION SELECT t.id FROM bridge.turns t WHERE t.match_id = v_match AND t.state IN ('composing', 'typing')
          UNION SELECT t.id FROM bridge.turns t WHERE t.match_id = v_match AND bridge.speaks_first(t.kind)
          UNION (SELECT t.id FROM bridge.turns t WHERE t.match_id = v_match AND t.ended_at IS NOT NULL
                 ORDER BY t.ended_at DESC LIMIT p_limit)) f;
    SELECT jsonb_agg(jsonb_build_object(
               'event_id', n.id, 'kind', n.kind, 'message_id', n.message_id, 'turn_id', n.turn_id,
               'captured_at', n.captured_at, 'grouped_at', n.grouped_at, 'set_aside', n.error IS NOT NULL) ORDER BY n.id)
    INTO v_events
    FROM (SELECT u.* FROM (
              SELECT e.* FROM bridge.events e WHERE e.turn_id = ANY (v_turns)
              UNION SELECT e.* FROM bridge.events e WHERE e.match_id = v_match AND e.turn_id IS NULL AND e.error IS NULL
              UNION SELECT e.* FROM bridge.events e WHERE e.kind = 'match' AND e.match_id = v_match
              UNION SELECT e.* FROM bridge.events e WHERE e.kind = 'message' AND e.message_id = p_id) u
          ORDER BY u.id DESC LIMIT p_limit) n;
    IF v_turns IS NULL AND v_events IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN bridge.standing(v_match) || jsonb_build_object(
        'match_id', v_match, 'events', coalesce(v_events, '[]'),
        'turns', (SELECT coalesce(jsonb_agg(t.line ORDER BY (t.line -> 'turn_id')::bigint), '[]')
                  FROM bridge.turn_lines(v_turns) AS t (line)));
END
$$;
