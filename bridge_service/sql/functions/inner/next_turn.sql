-- The conversation's waiting turn if it was pushed already: the worker that ended the active one goes on with it, instead
-- of waiting for the push that T7 brings anyway.
CREATE OR REPLACE FUNCTION bridge.next_turn(p_match uuid) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT t.id FROM bridge.turns t WHERE t.match_id = p_match AND t.kind = 'reply' AND t.state = 'queued');
END
$$;
