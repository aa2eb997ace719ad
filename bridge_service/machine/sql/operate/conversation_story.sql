-- Where one conversation stands: `python -m bridge_service conversations show`. Never the content. By indexes only.
--
-- Returns {match_id, bot_id, state, pauses: see pauses_of.sql, ungrouped, turns}, or NULL for a match that the
-- bridge does not know. `state` is left, off or paused, or that of the unfinished turn that comes first, or idle. `turns` are the unfinished
-- ones (turn_story.sql), the active one first.
CREATE OR REPLACE FUNCTION bridge.conversation_story(p_match uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_bot       uuid;
    v_ungrouped integer;
    v_pauses    jsonb;
    v_turns     jsonb;
BEGIN
    SELECT c.bot_id INTO v_bot FROM bridge.conversation(p_match) c;
    v_pauses := bridge.pauses_of(p_match, v_bot);
    SELECT count(*) INTO v_ungrouped FROM bridge.ungrouped_events(p_match) e WHERE e.kind = 'message';
    SELECT coalesce(jsonb_agg(bridge.turn_story(u.id) ORDER BY u.place, u.id), '[]') INTO v_turns
    FROM (SELECT t.id, 1 AS place FROM bridge.turns t WHERE t.match_id = p_match AND t.state IN ('composing', 'typing')
          UNION ALL
          SELECT t.id, 2 FROM bridge.turns t
          WHERE t.match_id = p_match AND bridge.is_waiting(t.kind, t.state)
          UNION ALL
          SELECT t.id, 3 FROM bridge.turns t
          WHERE t.match_id = p_match AND bridge.speaks_first(t.kind) AND (t.state IN ('open', 'queued')) IS TRUE) u;
    IF v_bot IS NULL AND v_ungrouped = 0 AND v_pauses = '[]' AND v_turns = '[]' THEN
        RETURN NULL;
    END IF;
    RETURN jsonb_build_object(
        'match_id', p_match, 'bot_id', v_bot,
        'state', CASE WHEN bridge.is_left(p_match) THEN 'left'
                      WHEN NOT (SELECT p.active FROM bridge.policy(v_bot) p) THEN 'off'
                      WHEN v_pauses <> '[]' THEN 'paused'
                      WHEN v_turns <> '[]' THEN v_turns -> 0 ->> 'state'
                      WHEN v_ungrouped > 0 THEN 'open' ELSE 'idle' END,
        'pauses', v_pauses, 'ungrouped', v_ungrouped, 'turns', v_turns);
END
$$;
