-- Whether a conversation went on after a reply, so that no follow-up may follow it (F3). It did if the bot left, if a
-- message or a human's message waits to be grouped, if a reply is owed or under way, if another turn ended since the reply
-- was last claimed (a chosen silence and a human's answer too), if the match has no event that a delivery can lock
-- (keep_match.sql), or if the newest message in the app's table is not the reply's last one. A reply that retention has
-- deleted counts as gone on.
--
-- The claim is the bound, and not the reply's end: what was grouped during the delivery ended before it, and is in no
-- `covers`. A superseded turn holds no message any more.
-- STABLE: all of it is one look. A delivery calls it in a statement after its lock (F1).
CREATE OR REPLACE FUNCTION bridge.went_on(p_reply bigint) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    r      record;
    v_last uuid;
BEGIN
    SELECT t.match_id, t.bot_id, t.claimed_at, t.reply_message_id, t.parts INTO r FROM bridge.turns t WHERE t.id = p_reply;
    IF NOT FOUND OR bridge.is_left(r.match_id)
       OR NOT EXISTS (SELECT FROM bridge.events m WHERE m.kind = 'match' AND m.match_id = r.match_id) THEN
        RETURN true;
    END IF;
    IF EXISTS (SELECT FROM bridge.ungrouped_events(r.match_id) u WHERE u.kind IN ('message', 'human'))
       OR EXISTS (SELECT FROM bridge.turns w WHERE w.match_id = r.match_id AND bridge.is_waiting(w.kind, w.state))
       OR EXISTS (SELECT FROM bridge.turns a
                  WHERE a.match_id = r.match_id AND a.state IN ('composing', 'typing') AND bridge.answers(a.kind) IS TRUE)
       OR EXISTS (SELECT FROM bridge.turns o
                  WHERE o.match_id = r.match_id AND o.ended_at > r.claimed_at AND o.id <> p_reply
                    AND (bridge.answers(o.kind) AND o.reason IS DISTINCT FROM 'superseded') IS TRUE) THEN
        RETURN true;
    END IF;
    v_last := r.reply_message_id;
    IF r.parts IS NOT NULL THEN
        SELECT p.message_id INTO v_last FROM bridge.parts p
        WHERE p.turn_id = p_reply AND p.delivered_at IS NOT NULL ORDER BY p.number DESC LIMIT 1;
    END IF;
    -- An app's own `history` may tell no ids.
    RETURN NOT EXISTS (SELECT FROM bridge.history(r.match_id, '{}', 1) h
                       WHERE h.sender_id = r.bot_id AND (h.message_id = v_last) IS NOT FALSE);
END
$$;
