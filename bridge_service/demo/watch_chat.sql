-- What the chat shows beside the messages: each match that is new, and each reply that was under way when it was last looked at.
SELECT
    (SELECT coalesce(jsonb_agg(jsonb_build_object('id', m.id, 'person', p.first_name, 'bot', b.first_name)
                               ORDER BY m.created_at), '[]')
     FROM matches m
     JOIN profiles p ON p.id IN (m.user1_id, m.user2_id) AND NOT p.is_bot
     JOIN profiles b ON b.id IN (m.user1_id, m.user2_id) AND b.is_bot
     WHERE m.created_at >= to_timestamp(%s)),
    (SELECT coalesce(jsonb_agg(jsonb_build_object('turn', t.id, 'match', t.match_id, 'state', t.state,
                                                  'reason', t.reason, 'draft', t.draft)), '[]')
     FROM bridge.turns t WHERE t.state IN ('composing', 'typing') OR t.id = ANY (%s)),
    (SELECT count(*) FROM bridge.turns t WHERE t.ended_at IS NULL),
    (SELECT count(*) FROM bridge.events e WHERE e.turn_id IS NULL AND e.error IS NULL)
