-- The ledger: every message from a person to a bot that was captured since the installation and is younger than the
-- retention, in exactly one column. `python -m bridge_service verify`.
--
-- unaccounted: the app has it (from after the installation) and it is owed by owed.sql, or its event was set aside,
--   points nowhere, or belongs to an answered turn whose draft did not cover it. `replay` mends what is owed or was set
--   aside.
-- doubled: covered by two answered turns, or its reply's id is another turn's reply too; counted beside the columns
--
-- What the app dates in the future is not asked after, nor is the last tenth of the retention: there an app's clock
-- that is ahead of ours would make a message look lost whose event was pruned in good order (C3).
-- STABLE: all of it is one look, so a message and its event are seen together or not at all.
--
-- MATERIALIZED: each is made once, and not for every message, as statistics of a time with few answers would have it.
--
-- Returns {messages, answered, open, cancelled, dead, unaccounted, doubled, faults: [{message_id, fault}, ...]}, of the
-- faults the first p_faults.
CREATE OR REPLACE FUNCTION bridge.verify(p_retention_days double precision, p_faults integer) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET work_mem = '64MB' AS $$
DECLARE
    v_now       timestamptz := bridge.now();
    v_retention interval := make_interval(secs => p_retention_days * 86400);
    v_installed timestamptz;
    v_answer    jsonb;
BEGIN
    SELECT i.installed_at INTO v_installed FROM bridge.installation i;
    WITH covered AS MATERIALIZED (
        SELECT c.event_id
        FROM bridge.turns t CROSS JOIN LATERAL unnest(t.covers) AS c (event_id)
        WHERE bridge.answers(t.kind) AND t.state = 'answered'
        GROUP BY c.event_id HAVING count(*) > 1),
    repeated AS MATERIALIZED (
        SELECT t.reply_message_id FROM bridge.turns t
        WHERE t.state = 'answered' AND t.reply_message_id IS NOT NULL GROUP BY t.reply_message_id HAVING count(*) > 1),
    owed AS MATERIALIZED (
        SELECT o.message_id, o.event_id FROM bridge.owed(greatest(v_installed, v_now - v_retention * 0.9), v_now, NULL) o),
    ledger AS (
        SELECT e.message_id,
               CASE
                   WHEN o.event_id IS NOT NULL THEN 'unaccounted'
                   WHEN e.error IS NOT NULL OR (e.turn_id IS NOT NULL AND t.id IS NULL) THEN 'unaccounted'
                   WHEN t.id IS NULL OR t.state IN ('open', 'queued', 'composing', 'typing') THEN 'open'
                   WHEN t.state = 'answered' AND (e.id = ANY (t.covers)) IS NOT TRUE THEN 'unaccounted'
                   ELSE t.state
               END AS place,
               CASE
                   WHEN o.event_id IS NOT NULL THEN 'cancelled as gone, and its conversation is there again'
                   WHEN e.error IS NOT NULL THEN 'set aside: ' || e.error
                   WHEN t.id IS NULL THEN 'its turn is gone'
                   ELSE 'its turn was answered without it'
               END AS fault,
               c.event_id IS NOT NULL OR r.reply_message_id IS NOT NULL AS doubled
        FROM bridge.events e
        LEFT JOIN bridge.turns t ON t.id = e.turn_id
        LEFT JOIN covered c ON c.event_id = e.id
        LEFT JOIN repeated r ON r.reply_message_id = t.reply_message_id
        LEFT JOIN owed o ON o.event_id = e.id
        WHERE e.kind = 'message' AND e.captured_at > v_now - v_retention
        UNION ALL
        SELECT o.message_id, 'unaccounted', 'never captured', false FROM owed o WHERE o.event_id IS NULL),
    faults AS (
        SELECT l.message_id, CASE WHEN l.place = 'unaccounted' THEN l.fault ELSE 'answered twice' END AS fault
        FROM ledger l WHERE l.place = 'unaccounted' OR l.doubled LIMIT p_faults)
    SELECT jsonb_build_object(
        'messages', count(*),
        'answered', count(*) FILTER (WHERE l.place = 'answered'),
        'open', count(*) FILTER (WHERE l.place = 'open'),
        'cancelled', count(*) FILTER (WHERE l.place = 'cancelled'),
        'dead', count(*) FILTER (WHERE l.place = 'dead'),
        'unaccounted', count(*) FILTER (WHERE l.place = 'unaccounted'),
        'doubled', count(*) FILTER (WHERE l.doubled),
        'faults', (SELECT coalesce(jsonb_agg(jsonb_build_object('message_id', f.message_id, 'fault', f.fault)), '[]')
                   FROM faults f))
    INTO v_answer
    FROM ledger l;
    RETURN v_answer;
END
$$;
