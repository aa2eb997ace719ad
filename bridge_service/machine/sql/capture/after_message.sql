-- AFTER INSERT on messages, for each row: statement triggers miss an INSERT straight into a partition (C2).
-- No EXCEPTION block: it would trade a failed INSERT for a lost message (C1).
CREATE OR REPLACE FUNCTION bridge.after_message() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = 0 AS $$
DECLARE
    v_event bigint;
BEGIN
    -- PERFORM would run a whole statement.
    v_event := bridge.capture_message(NEW.id, NEW.match_id, NEW.sender_id, NEW.created_at);
    RETURN NULL;
END
$$;
