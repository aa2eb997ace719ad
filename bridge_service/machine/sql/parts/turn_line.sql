-- One turn as the console's lists show it: ids, numbers and times in UTC. Of an error only its type or SQLSTATE, since
-- its words may quote a message.
CREATE OR REPLACE FUNCTION bridge.turn_line(p_turn bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
    SELECT jsonb_build_object(
        'turn_id', t.id, 'kind', t.kind, 'state', t.state, 'match_id', t.match_id, 'bot_id', t.bot_id,
        'opened_at', t.opened_at, 'queued_at', t.queued_at, 'claimed_at', t.claimed_at, 'deliver_at', t.deliver_at,
        'due_at', t.due_at, 'ended_at', t.ended_at, 'attempts', t.attempts, 'takeovers', t.takeovers,
        'merges', t.merges, 'pushes', t.pushes, 'reason', t.reason, 'held', CASE WHEN t.state = 'open' THEN t.held END,
        'parts', bridge.parts_story(t.id),
        'error', substring(t.last_error FROM '^(?:[A-Za-z_]\w{0,80}(?=:|$)|[0-9A-Z]{5}\y)'),
        'messages', (SELECT count(*) FROM bridge.events e WHERE e.turn_id = t.id AND (e.kind = 'message') IS TRUE))
    FROM bridge.turns t WHERE t.id = p_turn
$$;
