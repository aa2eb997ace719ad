-- Tells the schedulers that a step is due earlier than they may know, so that a pause of two seconds is not ended by a
-- sweep. Only when no other turn will make them look before: NOTIFY is not free (see ring.sql), and after every pass they
-- plan the next from the table. Like every bell it may be lost. (The order as in push_due.)
CREATE OR REPLACE FUNCTION bridge.ring_due(p_turn bigint, p_due timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_sort = off SET jit = off AS $$
BEGIN
    IF (SELECT t.id FROM bridge.turns t
        WHERE t.state IN ('composing', 'typing') AND t.due_at <= p_due AND t.id <> p_turn
          AND t.due_at > (SELECT bridge.now()) AND (t.state = 'typing' OR t.token IS NULL)
        ORDER BY t.due_at LIMIT 1
    ) IS NULL THEN
        PERFORM bridge.notify('bridge_due');
    END IF;
END
$$;
