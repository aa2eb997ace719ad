-- Where some messages, and the openers of some matches, stand: `validate` asks this again and again while it waits. By
-- indexes only, so it costs the same however much history there is. The times are seconds since the epoch.
--
-- Returns {now, events: [{message_id or null, match_id, captured_at, grouped_at, turn_id, error}, ...],
--   turns: [{turn_id, kind, match_id, state, opened_at, due_at, queued_at, claimed_at, answered_at, reply_message_id,
--            part_ids, reason, last_error}, ...]}, both in order.
CREATE OR REPLACE FUNCTION bridge.follow(p_messages uuid[], p_matches uuid[]) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH followed AS MATERIALIZED (
        SELECT e.* FROM bridge.events e WHERE e.kind = 'message' AND e.message_id = ANY (p_messages)
        UNION ALL
        SELECT e.* FROM bridge.events e WHERE e.kind = 'match' AND e.match_id = ANY (p_matches)),
    turns AS (
        SELECT t.* FROM bridge.turns t WHERE t.id IN (SELECT f.turn_id FROM followed f))
    SELECT jsonb_build_object(
        'now', extract(epoch FROM bridge.now()),
        'events', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'message_id', f.message_id, 'match_id', f.match_id, 'captured_at', extract(epoch FROM f.captured_at),
                'grouped_at', extract(epoch FROM f.grouped_at), 'turn_id', f.turn_id, 'error', f.error)
                ORDER BY f.id), '[]')
            FROM followed f),
        'turns', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'turn_id', t.id, 'kind', t.kind, 'match_id', t.match_id, 'state', t.state,
                'opened_at', extract(epoch FROM t.opened_at), 'due_at', extract(epoch FROM t.due_at),
                'planned_at', extract(epoch FROM t.planned_at), 'queued_at', extract(epoch FROM t.queued_at),
                'claimed_at', extract(epoch FROM t.claimed_at),
                'answered_at', extract(epoch FROM t.answered_at),
                'reply_message_id', CASE WHEN t.state = 'answered' THEN t.reply_message_id END,
                'part_ids', (SELECT coalesce(jsonb_agg(p.message_id ORDER BY p.number), '[]') FROM bridge.parts p
                             WHERE t.parts IS NOT NULL AND p.turn_id = t.id AND p.delivered_at IS NOT NULL),
                'reason', t.reason, 'last_error', t.last_error) ORDER BY t.id), '[]')
            FROM turns t))
$$;
