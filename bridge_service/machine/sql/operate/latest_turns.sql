-- The newest turns, for the console's page: ids, numbers and times in UTC. No error text, which may quote a message.
CREATE OR REPLACE FUNCTION bridge.latest_turns(p_limit integer) RETURNS SETOF jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
    SELECT jsonb_build_object(
        'turn_id', t.id, 'kind', t.kind, 'state', t.state, 'match_id', t.match_id, 'opened_at', t.opened_at,
        'queued_at', t.queued_at, 'due_at', t.due_at, 'ended_at', t.ended_at, 'attempts', t.attempts,
        'merges', t.merges, 'reason', t.reason,
        'messages', (SELECT count(*) FROM bridge.events e WHERE e.turn_id = t.id AND (e.kind = 'message') IS TRUE))
    FROM bridge.turns t ORDER BY t.id DESC LIMIT p_limit
$$;
