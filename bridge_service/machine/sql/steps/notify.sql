-- The one NOTIFY of the bridge: whether it was sent. When the instance's queue of notifications fills, silence: a full one
-- fails the COMMIT of whoever notifies, past any EXCEPTION block. A bell that is not rung costs time, never a message: the
-- sweep looks. And asking is what frees a queue whose slow reader is gone: PostgreSQL advances its tail for nobody else
-- while nobody can notify.
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
