-- The newest messages from a moment on, oldest first.
SELECT jsonb_build_object('id', m.id, 'match', m.match_id, 'bot', s.is_bot, 'text', left(m.content, 4000),
                          'at', extract(epoch FROM m.created_at), 'why', CASE WHEN EXISTS (
                              SELECT FROM bridge.events e WHERE e.kind = 'human' AND e.message_id = m.id) THEN 'by_human' END) AS message
FROM (SELECT * FROM messages n WHERE n.created_at >= to_timestamp(%s) ORDER BY n.created_at DESC LIMIT 600) m
JOIN profiles s ON s.id = m.sender_id
ORDER BY m.created_at
