-- The conversation's waiting turn if it was pushed already and may be claimed: the worker that ended the active one goes on
-- with it, instead of waiting for the push that T7 brings anyway. Found by the index of the conversation's only waiting turn, and never
-- among all that are queued: IS TRUE hides their index.
CREATE OR REPLACE FUNCTION bridge.next_turn(p_match uuid) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
BEGIN
    RETURN (SELECT t.id FROM bridge.turns t
            WHERE t.match_id = p_match AND bridge.is_waiting(t.kind, t.state)
              AND (t.state = 'queued') IS TRUE AND (t.retry_at > bridge.now()) IS NOT TRUE);
END
$$;
