-- AFTER UPDATE of a message's content, and AFTER DELETE, for each row. An app that marks deleted messages in a column of
-- its own lays one more trigger with this function there. No EXCEPTION block, as in after_message.sql.
CREATE OR REPLACE FUNCTION bridge.after_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = 0 AS $$
DECLARE
    v_event bigint;
BEGIN
    v_event := bridge.capture_change(OLD.id);
    RETURN NULL;
END
$$;
