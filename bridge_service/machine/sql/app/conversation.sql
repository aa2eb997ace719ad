-- Who talks in a match, if exactly one side is a bot; no row for two people, two bots or a match that is gone (F2, D5).
-- An app with other tables replaces this function; `migrate` leaves a replaced one alone.
--
-- PostgreSQL inlines it into the statement that calls it, which costs a third of a call. So it has no SET and not its
-- owner's rights: its callers have both. It returns no other types than those declared, so all columns are cast.
CREATE OR REPLACE FUNCTION bridge.conversation(p_match uuid)
RETURNS TABLE (bot_id uuid, bot_name text, person_id uuid, person_name text, matched_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT bot.id::uuid, bot.first_name::text, person.id::uuid, person.first_name::text, m.created_at::timestamptz
    FROM {app}.matches m
    JOIN {app}.profiles bot ON bot.id IN (m.user1_id, m.user2_id) AND bot.is_bot
    JOIN {app}.profiles person ON person.id IN (m.user1_id, m.user2_id) AND person.is_bot IS NOT TRUE
    WHERE m.id = p_match
$$;
