-- What people wrote to bots in a span of time, whether the bridge knows of it or not, by the app's own tables: `verify`
-- and `replay` compare it with what was captured. It says of a message what `conversation` says of its match: exactly
-- one side is a bot, and the other one wrote (F2). A message without a time is in no span.
-- An app with other tables replaces this function; `migrate` leaves a replaced one alone.
CREATE OR REPLACE FUNCTION bridge.messages_to_bots(p_since timestamptz, p_until timestamptz)
RETURNS TABLE (message_id uuid, match_id uuid, bot_id uuid, sender_id uuid, created_at timestamptz)
LANGUAGE sql STABLE ROWS 100000 SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT w.id, w.match_id, bot.id, w.sender_id, w.created_at
    FROM {app}.messages w
    JOIN {app}.matches m ON m.id = w.match_id AND w.sender_id IN (m.user1_id, m.user2_id)
    JOIN {app}.profiles person ON person.id = w.sender_id AND person.is_bot IS NOT TRUE
    -- The other side by one equation, or the join could not be hashed.
    JOIN {app}.profiles bot ON bot.id = CASE m.user1_id WHEN w.sender_id THEN m.user2_id ELSE m.user1_id END AND bot.is_bot
    WHERE w.created_at >= p_since AND w.created_at < p_until
$$;
