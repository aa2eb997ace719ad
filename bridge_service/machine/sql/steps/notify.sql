-- The only NOTIFY of the bridge; returns whether it was sent. It is left out while PostgreSQL's queue of notifications
-- is half full: a full queue fails the COMMIT of each transaction that notifies, past any EXCEPTION block. A bell that
-- is left out costs time and never a message: the sweep looks.
-- Asking for the queue's usage also frees what a session has left behind that listened and is gone. As long as no
-- session notifies, PostgreSQL frees it at no other moment.
CREATE OR REPLACE FUNCTION bridge.notify(p_channel text, p_payload text DEFAULT '') RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify(p_channel, p_payload);
        RETURN true;
    END IF;
    RETURN false;
END
$$;
