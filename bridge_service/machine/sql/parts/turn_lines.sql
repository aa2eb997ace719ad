-- These turns as the console's lists show them, in the order in which they are named: ids, numbers and times in UTC. Of an
-- error only its type or SQLSTATE, since its words may quote a message. One call a list: a call a turn cost more than what
-- it read.
CREATE OR REPLACE FUNCTION bridge.turn_lines(p_turns bigint[]) RETURNS SETOF jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET jit = off AS $$
    SELECT jsonb_build_object(
        'turn_id', t.id, 'kind', t.kind, 'state', t.state, 'match_id', t.match_id, 'bot_id', t.bot_id,
        'opened_at', t.opened_at, 'queued_at', t.queued_at, 'claimed_at', t.claimed_at, 'deliver_at', t.deliver_at,
        'due_at', t.due_at, 'ended_at', t.ended_at, 'attempts', t.attempts, 'takeovers', t.takeovers,
        'merges', t.merges, 'pushes', t.pushes, 'reason', t.reason, 'held', CASE WHEN t.state = 'open' THEN t.held END,
        'parts', CASE WHEN t.parts IS NULL THEN '[]' ELSE bridge.parts_story(t.id) END,
        -- Short patterns: one that counts up to 80 characters costs as much as the rest of the line.
        'error', CASE WHEN n.name ~ '^[A-Za-z_]\w*$' AND length(n.name) <= 81 THEN n.name
                      WHEN t.last_error ~ '^[0-9A-Z]{5}\y' THEN left(t.last_error, 5) END,
        'messages', (SELECT count(*) FROM bridge.events e WHERE e.turn_id = t.id AND (e.kind = 'message') IS TRUE))
    FROM unnest(p_turns) WITH ORDINALITY AS l (id, place)
    JOIN bridge.turns t ON t.id = l.id
    CROSS JOIN LATERAL (SELECT split_part(t.last_error, ':', 1)) AS n (name)
    ORDER BY l.place
$$;
