-- Lets the bot answer in a conversation again: deletes its pauses. What was written while the bot had left stays without an
-- answer. Returns whether there was a pause.
CREATE OR REPLACE FUNCTION bridge.resume(p_match uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
BEGIN
    DELETE FROM bridge.pauses WHERE match_id = p_match;
    RETURN FOUND;
END
$$;
