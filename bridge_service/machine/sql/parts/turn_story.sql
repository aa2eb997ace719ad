-- What an operator may read of a turn, its times in UTC: everything except its draft and its token. `leased`: a worker
-- has it.
CREATE OR REPLACE FUNCTION bridge.turn_story(p_turn bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
    SELECT jsonb_build_object(
        'turn_id', t.id, 'kind', t.kind, 'state', t.state, 'match_id', t.match_id, 'bot_id', t.bot_id,
        'opened_at', t.opened_at, 'queued_at', t.queued_at, 'claimed_at', t.claimed_at, 'deliver_at', t.deliver_at,
        'answered_at', t.answered_at, 'ended_at', t.ended_at, 'due_at', t.due_at, 'retry_at', t.retry_at,
        'held', CASE WHEN t.state = 'open' THEN t.held END, 'leased', t.state = 'composing' AND t.token IS NOT NULL,
        'reply_message_id', CASE WHEN t.state = 'answered' THEN t.reply_message_id END,
        'attempts', t.attempts, 'takeovers', t.takeovers, 'merges', t.merges + t.overtakes, 'pushes', greatest(t.pushes, 0),
        'parts', bridge.parts_story(t.id), 'action', t.action, 'reason', t.reason, 'last_error', t.last_error,
        'message_ids', (SELECT coalesce(jsonb_agg(e.message_id ORDER BY e.id), '[]')
                        FROM bridge.events e WHERE e.turn_id = t.id AND (e.kind = 'message') IS TRUE))
    FROM bridge.turns t WHERE t.id = p_turn
$$;
