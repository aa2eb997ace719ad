-- Up to which of the app's times the bridge owes `p_person` no answer in a match; NULL: it owes one to every message.
-- It is the later of two: the time of the newest message that retention has deleted, and that of the newest message
-- that a human or another program wrote for the bot. A message was written for the bot if it is not the person's and
-- the bridge does not know it (known_lines.sql).
-- A message that the app dates more than a day ahead does not count, or it would answer all that comes until then.
CREATE OR REPLACE FUNCTION bridge.answered_until(p_match uuid, p_person uuid) RETURNS timestamptz
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_lines uuid[];
    v_times timestamptz[];
    v_mine  boolean[];
BEGIN
    SELECT array_agg(h.message_id), array_agg(h.created_at), array_agg(h.sender_id IS NOT DISTINCT FROM p_person)
    INTO v_lines, v_times, v_mine
    FROM bridge.history(p_match, '{}', 2147483647) h;
    RETURN greatest(
        (SELECT f.until FROM bridge.forgotten f WHERE f.match_id = p_match),
        (SELECT max(l.created_at)
         FROM unnest(v_lines, v_times, v_mine) AS l (message_id, created_at, mine)
         WHERE NOT l.mine AND l.created_at <= bridge.now() + interval '1 day'
           AND l.message_id NOT IN (SELECT k.message_id FROM bridge.known_lines(p_match, v_lines) k)));
END
$$;
