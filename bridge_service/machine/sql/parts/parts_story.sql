-- The messages of a reply that has more than one, in order: ids and times, no text. A message without `delivered_at` is
-- still to come, or was withheld if the turn ended. [] for a reply of one message, and for a draft that was thrown away.
CREATE OR REPLACE FUNCTION bridge.parts_story(p_turn bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'number', p.number, 'message_id', p.message_id, 'deliver_at', p.deliver_at, 'delivered_at', p.delivered_at)
        ORDER BY p.number), '[]')
    FROM bridge.turns t JOIN bridge.parts p ON p.turn_id = t.id
    WHERE t.id = p_turn AND t.state IN ('typing', 'answered')
$$;
