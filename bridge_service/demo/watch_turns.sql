-- The turns that the playground shows: the oldest that are unfinished and the newest that ended. No text is among it.
WITH shown AS (
    (SELECT t.* FROM bridge.turns t WHERE t.ended_at IS NULL ORDER BY t.id LIMIT 8)
    UNION ALL
    (SELECT t.* FROM bridge.turns t WHERE t.ended_at IS NOT NULL ORDER BY t.ended_at DESC LIMIT 3))
SELECT jsonb_build_object(
    'id', t.id, 'kind', t.kind, 'state', t.state, 'match', t.match_id,
    'opened', extract(epoch FROM t.opened_at), 'due', extract(epoch FROM t.due_at),
    'queued', extract(epoch FROM t.queued_at), 'claimed', extract(epoch FROM t.claimed_at),
    'deliver', extract(epoch FROM t.deliver_at), 'ended', extract(epoch FROM t.ended_at),
    'merges', t.merges, 'reason', t.reason, 'held', CASE WHEN t.state = 'open' THEN t.held END, 'waits', t.state = 'composing' AND t.token IS NULL,
    'messages', (SELECT count(*) FROM bridge.events e WHERE e.turn_id = t.id AND e.kind = 'message'))
FROM shown t ORDER BY t.id DESC
