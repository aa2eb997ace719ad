-- What the chat shows beside the messages: each match that is new, each reply that was under way when it was last looked at, the
-- conversations in which a bot types or is paused (null: until `resume`), and each bot's hours, if it sleeps now, and disclosure.
SELECT
    (SELECT coalesce(jsonb_agg(jsonb_build_object('id', m.id, 'person', p.first_name, 'bot', b.first_name)
                               ORDER BY m.created_at), '[]')
     FROM matches m
     JOIN profiles p ON p.id IN (m.user1_id, m.user2_id) AND NOT p.is_bot
     JOIN profiles b ON b.id IN (m.user1_id, m.user2_id) AND b.is_bot
     WHERE m.created_at >= to_timestamp(%s)),
    (SELECT coalesce(jsonb_agg(jsonb_build_object('turn', t.id, 'match', t.match_id, 'state', t.state,
                                                  'reason', t.reason, 'draft', t.draft, 'parts', (
                SELECT jsonb_agg(jsonb_build_object('text', p.content, 'out', p.delivered_at IS NOT NULL) ORDER BY p.number)
                FROM bridge.parts p WHERE p.turn_id = t.id AND t.parts IS NOT NULL))), '[]')
     FROM bridge.turns t WHERE t.state IN ('composing', 'typing') OR t.id = ANY (%s)),
    (SELECT count(*) FROM bridge.turns t WHERE t.ended_at IS NULL),
    (SELECT count(*) FROM bridge.events e WHERE e.turn_id IS NULL AND e.error IS NULL),
    (SELECT coalesce(jsonb_agg(y.match_id), '[]') FROM typing_events y JOIN profiles b ON b.id = y.user_id AND b.is_bot WHERE y.is_typing),
    (SELECT coalesce(jsonb_object_agg(u.match_id, u.until), '{}')
     FROM (SELECT p.match_id, CASE WHEN count(*) = count(p.until) THEN extract(epoch FROM max(p.until)) END AS until
           FROM bridge.pauses p WHERE p.match_id IS NOT NULL AND (p.until > bridge.now()) IS NOT FALSE GROUP BY p.match_id) u),
    (SELECT jsonb_object_agg(b.first_name, jsonb_build_object(
         'night', CASE WHEN bridge.quiet_until(p.quiet_hours, p.quiet_hours_weekend, p.timezone, bridge.now()) IS NOT NULL
                       THEN coalesce(p.quiet_hours, p.quiet_hours_weekend) END,
         'disclosure', p.disclosure))
     FROM profiles b CROSS JOIN LATERAL bridge.policy(b.id) p WHERE b.is_bot)
