-- Returns the tokens that are lost by what is committed: their turn has another token or none, is not `composing`, or is
-- gone (E2).
--
-- It only reads, so it waits for no lock, and sees a locked turn as it was last committed.
CREATE OR REPLACE FUNCTION bridge.lost_leases(p_turns bigint[], p_tokens uuid[]) RETURNS uuid[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
    SELECT coalesce(array_agg(l.token), '{}')
    FROM unnest(p_turns, p_tokens) AS l (turn, token)
    LEFT JOIN bridge.turns t ON t.id = l.turn
    WHERE (t.state = 'composing' AND t.token = l.token) IS NOT TRUE
$$;
