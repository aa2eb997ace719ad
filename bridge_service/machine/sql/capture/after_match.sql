-- AFTER INSERT on matches, for each row.
CREATE OR REPLACE FUNCTION bridge.after_match() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = 0 AS $$
BEGIN
    PERFORM bridge.capture_match(NEW.id, NEW.user1_id, NEW.user2_id, NEW.created_at);
    RETURN NULL;
END
$$;
