-- Of these conversations those in which no message is answered: the bot left them, or is off. NULL: none.
--
-- p_taken: events of these conversations; p_policy: of their bots, as policies.sql has it
CREATE OR REPLACE FUNCTION bridge.silent_matches(p_taken bigint[], p_matches uuid[], p_policy jsonb) RETURNS uuid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_silent uuid[];
    v_off    uuid[];
BEGIN
    SELECT array_agg(p.match_id) INTO v_silent
    FROM bridge.pauses p WHERE p.match_id = ANY (p_matches) AND p.cause = 'left';
    SELECT array_agg(b.key::uuid) INTO v_off
    FROM jsonb_each(p_policy) AS b (key, policy) WHERE b.policy -> 'active' = 'false';
    IF v_off IS NOT NULL THEN
        SELECT v_silent || array_agg(DISTINCT e.match_id) INTO v_silent
        FROM bridge.events e WHERE e.id = ANY (p_taken) AND (e.bot_id = ANY (v_off)) IS TRUE;
    END IF;
    RETURN v_silent;
END
$$;
