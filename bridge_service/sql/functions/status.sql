-- How many turns stand where, and how long the longest waiting person has waited: `python -m bridge_service status`.
-- A conversation whose events nobody has grouped yet is a turn to be: it counts as `open`, or a bridge whose schedulers
-- are all dead would look idle.
--
-- p_delay: seconds from a group's first capture to its push; only for those not grouped yet
--
-- Returns {open, queued, composing, typing, overdue, dead, oldest_unanswered_seconds}; `overdue`: due and not taken yet.
CREATE OR REPLACE FUNCTION bridge.status(p_delay double precision) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    v_now     timestamptz := bridge.now();
    v_pending bigint;
    v_late    bigint;
    v_first   timestamptz;
    v_oldest  timestamptz;
    v_answer  jsonb;
BEGIN
    SELECT count(*) FILTER (WHERE p.alone),
           count(*) FILTER (WHERE p.alone AND p.first + make_interval(secs => p_delay) <= v_now), min(p.first)
    INTO v_pending, v_late, v_first
    FROM (SELECT min(e.captured_at) AS first,
                 NOT EXISTS (SELECT FROM bridge.turns w
                             WHERE w.match_id = e.match_id AND w.kind = 'reply' AND w.state IN ('open', 'queued')) AS alone
          FROM bridge.events e
          WHERE e.turn_id IS NULL AND e.error IS NULL AND e.kind = 'message'
          GROUP BY e.match_id) p;
    SELECT min(e.captured_at) INTO v_oldest
    FROM bridge.turns t JOIN bridge.events e ON e.turn_id = t.id
    WHERE t.kind = 'reply' AND t.state IN ('open', 'queued', 'composing', 'typing') AND e.kind = 'message';
    SELECT jsonb_build_object(
        'open', v_pending + count(*) FILTER (WHERE t.state = 'open'),
        'queued', count(*) FILTER (WHERE t.state = 'queued'),
        'composing', count(*) FILTER (WHERE t.state = 'composing'),
        'typing', count(*) FILTER (WHERE t.state = 'typing'),
        'overdue', v_late + count(*) FILTER (WHERE t.due_at <= v_now),
        'dead', (SELECT count(*) FROM bridge.turns d WHERE d.state = 'dead'),
        'oldest_unanswered_seconds', coalesce(
            round(greatest(extract(epoch FROM v_now - least(v_first, v_oldest)), 0), 3), 0))
    INTO v_answer
    FROM bridge.turns t WHERE t.state IN ('open', 'queued', 'composing', 'typing');
    RETURN v_answer;
END
$$;
