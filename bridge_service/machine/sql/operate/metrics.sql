-- What the whole bridge owes at this moment, for the console's page and its /metrics. It is asked every few seconds, so
-- its cost does not grow with history. Finished turns are not counted, each query names one index of unfinished turns
-- (no partial index serves a `state IN (...)` of several), and no table is read whole, whatever the statistics say.
--
-- p_delay: unused, for the version before passes it
-- p_most: counts above it are estimates, from the statistics of the index; NULL: none is
--
-- Returns {open, queued, composing, typing, overdue, dead, estimated, inbox_open, captures, notify_queue_usage,
--   oldest_unanswered_at, overdue_since: seconds since the epoch, or null}
--   open, overdue: with the conversations that have only ungrouped events, as in status
--   inbox_open: ungrouped events
--   estimated: whether a count is an estimate; `overdue` and `oldest_unanswered_at` then are of the turns that are due
--   first
--   oldest_unanswered_at: since its capture, or since the end of a wait that policy ordered
--   captures: how many times something was captured, repeats and rollbacks included
CREATE OR REPLACE FUNCTION bridge.metrics(p_delay double precision DEFAULT NULL, p_most integer DEFAULT NULL)
RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_now      timestamptz := bridge.now();
    v_inbox    bigint;
    v_pending  bigint;
    v_late     bigint;
    v_first    timestamptz;
    v_late_by  timestamptz;
    v_captures bigint;
    v_policy   jsonb := bridge.policies(ARRAY(
        SELECT e.bot_id FROM bridge.events e WHERE e.turn_id IS NULL AND e.error IS NULL ORDER BY e.id LIMIT p_most));
    v_answer   jsonb;
BEGIN
    SELECT coalesce(sum(p.events), 0), count(*) FILTER (WHERE p.alone),
           count(*) FILTER (WHERE p.alone AND p.due_at <= v_now), min(p.first),
           min(p.due_at) FILTER (WHERE p.alone AND p.due_at <= v_now)
    INTO v_inbox, v_pending, v_late, v_first, v_late_by
    FROM (SELECT g.*, g.first + make_interval(
                     secs => (v_policy -> g.bot_id::text ->> 'grouping_delay')::double precision) AS due_at,
                 g.first IS NOT NULL AND NOT EXISTS (
                     SELECT FROM bridge.turns w
                     WHERE w.match_id = g.match_id AND bridge.is_waiting(w.kind, w.state)) AS alone
          FROM (SELECT e.match_id, (array_agg(e.bot_id))[1] AS bot_id, count(*) AS events,
                       min(e.captured_at) FILTER (WHERE e.kind = 'message') AS first
                FROM (SELECT n.* FROM bridge.events n
                      WHERE n.turn_id IS NULL AND n.error IS NULL ORDER BY n.id LIMIT p_most) e
                GROUP BY e.match_id) g) p;
    SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END INTO v_captures FROM bridge.events_id_seq s;
    WITH unfinished AS MATERIALIZED (
        (SELECT t.id, t.kind, t.state, t.due_at, t.held_until FROM bridge.turns t WHERE t.state = 'open'
         ORDER BY t.due_at LIMIT p_most)
        UNION ALL
        (SELECT t.id, t.kind, t.state, t.due_at, t.held_until FROM bridge.turns t WHERE t.state = 'queued'
         ORDER BY t.due_at LIMIT p_most)
        UNION ALL
        (SELECT t.id, t.kind, t.state, t.due_at, t.held_until FROM bridge.turns t WHERE t.state IN ('composing', 'typing')
         ORDER BY t.due_at LIMIT p_most))
    SELECT jsonb_build_object(
        'open', v_pending + greatest(count(*) FILTER (WHERE u.state = 'open'), CASE
            WHEN count(*) FILTER (WHERE u.state = 'open') >= p_most
            THEN (SELECT c.reltuples::bigint FROM pg_class c WHERE c.oid = to_regclass('bridge.turns_due_open')) END),
        'queued', count(*) FILTER (WHERE u.state = 'queued'),
        'composing', count(*) FILTER (WHERE u.state = 'composing'),
        'typing', count(*) FILTER (WHERE u.state = 'typing'),
        'overdue', v_late + count(*) FILTER (WHERE u.due_at <= v_now),
        'dead', (SELECT count(*) FROM (SELECT FROM bridge.turns t WHERE t.state = 'dead' LIMIT p_most) d),
        'estimated', v_inbox >= p_most OR count(*) FILTER (WHERE u.state = 'open') >= p_most
                     OR count(*) FILTER (WHERE u.state <> 'open') >= p_most,
        'inbox_open', v_inbox,
        'captures', v_captures,
        'notify_queue_usage', pg_notification_queue_usage(),
        'oldest_unanswered_at', extract(epoch FROM least(v_first, (
            SELECT min(greatest(e.captured_at, o.held_until))
            FROM unfinished o JOIN bridge.events e ON e.turn_id = o.id
            WHERE e.kind = 'message' AND (o.held_until > v_now) IS NOT TRUE))),
        'overdue_since', extract(epoch FROM least(v_late_by, min(u.due_at) FILTER (WHERE u.due_at <= v_now))))
    INTO v_answer
    FROM unfinished u;
    RETURN v_answer;
END
$$;
