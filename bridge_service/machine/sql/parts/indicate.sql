-- Calls show_typing in a subtransaction of its own, so that nothing that the app's table does holds up a reply (I-1).
-- Returns true if it is done; false if another session holds a lock; NULL if it raised.
CREATE OR REPLACE FUNCTION bridge.indicate(p_match uuid, p_bot uuid, p_on boolean) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '20ms' AS $$
BEGIN
    RETURN coalesce(bridge.show_typing(p_match, p_bot, p_on), true);
EXCEPTION
    WHEN lock_not_available OR deadlock_detected THEN
        RETURN false;
    WHEN OTHERS OR assert_failure THEN  -- which OTHERS leaves out
        RETURN NULL;
END
$$;
