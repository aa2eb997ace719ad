-- Where a match stands, for the app: {state, answers_at, paused_until}, or NULL if not exactly one side is a bot.
--   state: left | off | paused, else that of the unfinished turn that comes first, or idle
--   answers_at: when its next step is due, a reply's delivery or the end of a group or pause; null: nothing is owed
--   paused_until: 'infinity' for a pause without an end; null: it is not paused
CREATE OR REPLACE FUNCTION bridge.state(p_match uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_bot    uuid;
    v_paused timestamptz;
    t        record;
BEGIN
    SELECT c.bot_id INTO v_bot FROM bridge.conversation(p_match) c;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    v_paused := bridge.paused_until(p_match, v_bot);
    SELECT u.state, u.due_at INTO t
    FROM (SELECT a.state, a.due_at, 1 AS place FROM bridge.turns a
          WHERE a.match_id = p_match AND a.state IN ('composing', 'typing')
          UNION ALL
          SELECT w.state, w.due_at, 2 FROM bridge.turns w WHERE w.match_id = p_match AND bridge.is_waiting(w.kind, w.state)
          UNION ALL
          SELECT i.state, i.due_at, 3 FROM bridge.turns i
          WHERE i.match_id = p_match AND bridge.speaks_first(i.kind) AND (i.state IN ('open', 'queued')) IS TRUE
          UNION ALL
          SELECT 'open', NULL, 4 FROM bridge.ungrouped_events(p_match) e WHERE e.kind = 'message') u
    ORDER BY u.place LIMIT 1;
    RETURN jsonb_build_object(
        'state', CASE WHEN bridge.is_left(p_match) THEN 'left'
                      WHEN NOT (SELECT p.active FROM bridge.policy(v_bot) p) THEN 'off'
                      WHEN v_paused IS NOT NULL THEN 'paused'
                      ELSE coalesce(t.state, 'idle') END,
        'answers_at', t.due_at, 'paused_until', v_paused);
END
$$;
