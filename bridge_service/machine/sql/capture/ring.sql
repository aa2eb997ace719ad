-- Rings the bell on a channel, if no scheduler is about to look anyway (C4): NOTIFY makes the commit take a lock of the
-- whole instance until it is on disk, and a burst needs one bell. Another ungrouped event among the hundred before this
-- one has rung, or is younger than the scheduler's next look. Called for a match, and by functions of the adapter that
-- an app replaced; capture_message.sql has the same look in its INSERT.
--
-- An app that writes under another isolation level than READ COMMITTED rings every time: its snapshot still shows
-- events that were grouped long ago, and under SERIALIZABLE the look itself would make any two messages conflict.
CREATE OR REPLACE FUNCTION bridge.ring(p_channel text, p_event bigint, p_payload json) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('transaction_isolation') = 'read committed' THEN
        IF EXISTS (
            SELECT FROM bridge.events e
            WHERE e.turn_id IS NULL AND e.error IS NULL AND e.id >= p_event - 100 AND e.id < p_event) THEN
            RETURN;
        END IF;
    END IF;
    PERFORM bridge.notify(p_channel, p_payload::text);
END
$$;
