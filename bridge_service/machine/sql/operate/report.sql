-- What the last `p_seconds` came to, for `report`. It reads all of their rows, some seconds a million messages, and
-- locks none. What only the processes know comes from the incidents that they noted.
--
-- p_delay: unused, for the version before passes it
--
-- Returns
--   messages: {captured, answered, open, cancelled, dead, set_aside}, of those captured in that time
--   groups: {pushed, of_three, early}: replies pushed; with three messages or more; before their planned time
--   openers: {answered, waiting, not_drawn, cancelled, dead}, of the matches of that time
--   detection, push, reply, lateness: see `spread`. From a capture to its group; from the planned time of a group to
--     its push; from the last claim to the reply, at a human pace; from a reply's planned time to the reply.
--   failed_attempts, takeovers, superseded, dead: of the turns of that time
--   calls: {begun, unsettled, cancelled, discarded, spared}: of a model; without a known cost; given up while they ran;
--     for replies that newer messages superseded. `spared`: superseded replies for which no call was begun
--   tact: {humans, disclosed, distressed}: conversations in which a human wrote for the bot, in which the disclosure was said,
--     and in which a person wrote a word of distress
--   incidents: {kind: times}
CREATE OR REPLACE FUNCTION bridge.report(p_seconds double precision, p_delay double precision DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET work_mem = '64MB' AS $$
DECLARE
    v_since  timestamptz := bridge.now() - make_interval(secs => p_seconds);
    v_events jsonb;
    v_groups jsonb;
    v_turns  jsonb;
    v_calls  jsonb;
BEGIN
    SELECT jsonb_build_object(
        'messages', jsonb_build_object(
            'captured', count(*) FILTER (WHERE e.kind = 'message'),
            'answered', count(*) FILTER (WHERE e.kind = 'message' AND t.state = 'answered'),
            'open', count(*) FILTER (WHERE e.kind = 'message' AND e.error IS NULL
                                       AND (t.id IS NULL OR t.state IN ('open', 'queued', 'composing', 'typing'))),
            'cancelled', count(*) FILTER (WHERE e.kind = 'message' AND t.state = 'cancelled'),
            'dead', count(*) FILTER (WHERE e.kind = 'message' AND t.state = 'dead'),
            'set_aside', count(*) FILTER (WHERE e.kind = 'message' AND e.error IS NOT NULL)),
        'openers', jsonb_build_object(
            'answered', count(*) FILTER (WHERE t.kind = 'initiation' AND t.state = 'answered'),
            'waiting', count(*) FILTER (WHERE t.kind = 'initiation' AND t.state IN ('open', 'queued', 'composing', 'typing')),
            'not_drawn', count(*) FILTER (WHERE t.kind = 'initiation' AND t.reason = 'not_drawn'),
            'cancelled', count(*) FILTER (WHERE t.kind = 'initiation' AND t.state = 'cancelled' AND t.reason <> 'not_drawn'),
            'dead', count(*) FILTER (WHERE t.kind = 'initiation' AND t.state = 'dead')),
        'detection', bridge.spread(array_agg(
            extract(epoch FROM e.grouped_at - e.captured_at)::double precision) FILTER (WHERE e.grouped_at IS NOT NULL)))
    INTO v_events
    FROM bridge.events e LEFT JOIN bridge.turns t ON t.id = e.turn_id
    WHERE e.captured_at > v_since;

    -- Only turns that hold the message that opened them: a turn of `dead retry` had no delay to keep.
    SELECT jsonb_build_object(
        'groups', jsonb_build_object(
            'pushed', count(*),
            'of_three', count(*) FILTER (WHERE g.messages >= 3),
            'early', count(*) FILTER (WHERE g.late < -0.001)),
        'push', bridge.spread(array_agg(g.late) FILTER (WHERE g.late IS NOT NULL)))
    INTO v_groups
    FROM (SELECT count(*) FILTER (WHERE e.kind = 'message') AS messages,
                 extract(epoch FROM t.queued_at - t.planned_at)::double precision AS late
          FROM bridge.turns t JOIN bridge.events e ON e.turn_id = t.id
          WHERE bridge.answers(t.kind) AND t.queued_at > v_since
          GROUP BY t.id HAVING bool_or(e.captured_at = t.opened_at)) g;

    SELECT jsonb_build_object(
        'reply', bridge.spread(array_agg(extract(epoch FROM t.answered_at - t.claimed_at)::double precision)
                                   FILTER (WHERE t.answered_at IS NOT NULL AND t.claimed_at IS NOT NULL
                                             AND t.reason IS NULL)),
        'lateness', bridge.spread(array_agg(extract(epoch FROM t.answered_at - coalesce(t.part_at, t.deliver_at))::double precision)
                                      FILTER (WHERE t.answered_at IS NOT NULL AND t.deliver_at IS NOT NULL AND t.reason IS NULL)),
        'failed_attempts', coalesce(sum(t.attempts), 0),
        'takeovers', coalesce(sum(t.takeovers), 0),
        'superseded', count(*) FILTER (WHERE t.reason = 'superseded'),
        'dead', count(*) FILTER (WHERE t.state = 'dead'))
    INTO v_turns
    FROM bridge.turns t WHERE t.opened_at > v_since;

    SELECT jsonb_build_object(
        'begun', count(*),
        'unsettled', count(*) FILTER (WHERE c.tokens_in IS NULL),
        'cancelled', count(*) FILTER (WHERE c.outcome = 'cancelled'),
        'discarded', count(*) FILTER (WHERE t.reason = 'superseded'),
        'spared', (SELECT count(*) FROM bridge.turns s
                   WHERE s.opened_at > v_since AND s.reason = 'superseded'
                     AND NOT EXISTS (SELECT FROM bridge.calls n WHERE n.turn_id = s.id AND n.begun_at > v_since)))
    INTO v_calls
    FROM bridge.calls c LEFT JOIN bridge.turns t ON t.id = c.turn_id
    WHERE c.begun_at > v_since;

    RETURN v_events || v_groups || v_turns || jsonb_build_object('calls', v_calls, 'tact', jsonb_build_object(
        'humans', (SELECT count(DISTINCT e.match_id) FROM bridge.events e WHERE e.captured_at > v_since AND e.kind = 'human'),
        'disclosed', (SELECT count(*) FROM bridge.disclosures d WHERE d.said_at > v_since),
        'distressed', (SELECT count(*) FROM bridge.distress d WHERE d.last_at > v_since)), 'incidents', (
        SELECT coalesce(jsonb_object_agg(i.kind, i.times), '{}')
        FROM (SELECT n.kind, sum(n.times) AS times FROM bridge.incidents n
              WHERE n.happened_at > v_since GROUP BY n.kind) i));
END
$$;
