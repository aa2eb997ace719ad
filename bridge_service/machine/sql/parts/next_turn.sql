-- The conversation's waiting turn, if it was pushed and may be claimed. The worker that ended the active turn goes on
-- with it at once, before the push that T7 brings. It is found by the index of the conversation's only waiting turn:
-- IS TRUE hides the index of all queued turns.
CREATE OR REPLACE FUNCTION bridge.next_turn(p_match uuid) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
BEGIN
    RETURN (SELECT t.id FROM bridge.turns t
            WHERE t.match_id = p_match AND bridge.is_waiting(t.kind, t.state)
              AND (t.state = 'queued') IS TRUE AND (t.retry_at > bridge.now()) IS NOT TRUE);
END
$$;
