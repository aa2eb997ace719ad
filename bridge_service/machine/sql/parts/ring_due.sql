-- Rings if a turn's next step may be due earlier than the schedulers know. Without this bell a pause of two seconds
-- could last until the sweep. It does not ring if another turn in the same state is due before: then the schedulers
-- look anyway, and plan the next look from the table. NOTIFY is not free (ring.sql). Like every bell it may be lost.
-- (The order as in push_due.)
CREATE OR REPLACE FUNCTION bridge.ring_due(p_turn bigint, p_due timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
    v_other bigint;
BEGIN
    IF (SELECT t.state = 'typing' FROM bridge.turns t WHERE t.id = p_turn) THEN
        SELECT t.id INTO v_other FROM bridge.turns t
        WHERE t.state = 'typing' AND t.due_at <= p_due AND t.id <> p_turn AND t.due_at > (SELECT bridge.now())
        ORDER BY t.due_at LIMIT 1;
    ELSE
        SELECT t.id INTO v_other FROM bridge.turns t
        WHERE t.state = 'composing' AND t.due_at <= p_due AND t.id <> p_turn AND t.due_at > (SELECT bridge.now())
          AND t.token IS NULL
        ORDER BY t.due_at LIMIT 1;
    END IF;
    IF v_other IS NULL THEN
        PERFORM bridge.notify('bridge_due');
    END IF;
END
$$;
