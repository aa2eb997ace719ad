-- Conversations in which the bridge spoke after DISCLOSURE was set for the bot, and which do not have the disclosure (L1):
-- the fourth count of `verify`. It looks at conversations that exist, in which the bridge spoke within the retention and
-- in which a message of the bot stands. Two kinds of them count:
--   the disclosure was said, and its message is not in the app's table any more;
--   it was not said, and the bridge spoke more than 5 s after the policy that rules now was set. A delivery that looked just
--   before that commit did not know of it.
-- It reads what deliveries wrote and does not ask `disclose`, so it also finds what a mistake there would leave out.
--
-- STABLE: called in the statement of verify.sql, it sees the same moment.
--
-- Returns {undisclosed, conversations: [match_id, ...]}, of the conversations the first p_most.
CREATE OR REPLACE FUNCTION bridge.undisclosed(p_retention_days double precision, p_most integer) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET work_mem = '64MB' AS $$
DECLARE
    v_since   timestamptz := bridge.now() - make_interval(secs => p_retention_days * 86400);
    v_matches uuid[];
BEGIN
    IF EXISTS (SELECT FROM bridge.disclosing) THEN
        WITH spoke AS MATERIALIZED (
            SELECT s.match_id, s.bot_id, max(s.at) AS at
            FROM (SELECT t.match_id, t.bot_id, t.answered_at AS at FROM bridge.turns t
                  WHERE t.state = 'answered' AND t.reply_message_id IS NOT NULL AND t.answered_at > v_since
                  UNION ALL
                  SELECT n.match_id, n.bot_id, n.said_at FROM bridge.notices n WHERE n.said_at > v_since) s
            GROUP BY s.match_id, s.bot_id),
        bots AS MATERIALIZED (
            -- The ruling row is the first with a value. Rows before it may have ruled, until they changed.
            SELECT b.bot_id, (SELECT max(d.since) FROM bridge.disclosing d
                              WHERE d.scope <= r.scope AND (d.bot_id = b.bot_id OR d.bot_id IS NULL)) AS since
            FROM (SELECT DISTINCT s.bot_id FROM spoke s) b
            CROSS JOIN LATERAL (
                SELECT p.scope, p.disclosure FROM bridge.bots p
                WHERE (p.bot_id = b.bot_id OR p.bot_id IS NULL) AND p.disclosure IS NOT NULL
                ORDER BY p.scope LIMIT 1) r
            WHERE r.disclosure <> 'none')
        SELECT array_agg(s.match_id ORDER BY s.match_id) INTO v_matches
        FROM spoke s
        LEFT JOIN bots b ON b.bot_id = s.bot_id
        LEFT JOIN bridge.disclosures d ON d.match_id = s.match_id AND d.bot_id = s.bot_id
        WHERE CASE WHEN d.message_id IS NULL THEN s.at > b.since + interval '5 seconds'
                   ELSE NOT EXISTS (SELECT FROM bridge.history(s.match_id, ARRAY[d.message_id], 0) h WHERE h.covered) END
          AND EXISTS (SELECT FROM bridge.conversation(s.match_id) c WHERE c.bot_id = s.bot_id)
          AND EXISTS (SELECT FROM bridge.history(s.match_id, '{}', 2147483647) h WHERE h.sender_id = s.bot_id);
    END IF;
    RETURN jsonb_build_object(
        'undisclosed', coalesce(cardinality(v_matches), 0),
        'conversations', to_jsonb(coalesce(v_matches[:p_most], '{}')));
END
$$;
