-- The person to whom a turn speaks, or NULL if the conversation is gone: the sender of its newest message; for an
-- opener the match's other side.
CREATE OR REPLACE FUNCTION bridge.person_of(p_turn bigint) RETURNS uuid
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
BEGIN
    RETURN coalesce(
        (SELECT e.sender_id FROM bridge.events e
         WHERE e.turn_id = p_turn AND (e.kind = 'message') IS TRUE ORDER BY e.id DESC LIMIT 1),
        (SELECT c.person_id FROM bridge.turns t CROSS JOIN LATERAL bridge.conversation(t.match_id) c
         WHERE t.id = p_turn AND c.bot_id = t.bot_id));
END
$$;
