-- Takes a bot's own pause back; a pause of one match stays. The sweep plans the turns that it held (plan_held.sql).
-- Returns whether there was one.
CREATE OR REPLACE FUNCTION bridge.resume_bot(p_bot uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
BEGIN
    DELETE FROM bridge.pauses WHERE bot_id = p_bot;
    RETURN FOUND;
END
$$;
