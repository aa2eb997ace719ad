-- Whether the bridge said this message (H1): a reply, an opener, a part, a notice or a disclosure. It is asked only of a
-- message in a bot's name that no `say` inserts just now, such as one of our own that the app moves to another partition.
-- There is no index of replies, so it reads the finished turns of the match.
CREATE OR REPLACE FUNCTION bridge.is_said_by_us(p_message uuid, p_match uuid) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
BEGIN
    RETURN EXISTS (SELECT FROM bridge.parts p WHERE p.message_id = p_message)
        OR EXISTS (SELECT FROM bridge.notices n WHERE n.match_id = p_match AND n.message_id = p_message)
        OR EXISTS (SELECT FROM bridge.disclosures d WHERE d.match_id = p_match AND d.message_id = p_message)
        OR EXISTS (SELECT FROM bridge.turns t
                   WHERE t.match_id = p_match AND t.ended_at IS NOT NULL AND t.reply_message_id = p_message);
END
$$;
