-- Switches the bot's indicator off, in the transaction that ends its turn. What another session holds is not waited for:
-- the row of bridge.indicators stays, and show_due comes back to it (I-1).
-- Internal: the caller holds the turn's lock.
CREATE OR REPLACE FUNCTION bridge.end_typing(p_turn bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    i bridge.indicators%ROWTYPE;
BEGIN
    SELECT * INTO i FROM bridge.indicators WHERE turn_id = p_turn FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    ELSIF i.on_since IS NULL OR bridge.indicate(i.match_id, i.bot_id, false) THEN
        DELETE FROM bridge.indicators WHERE turn_id = p_turn;
    ELSE
        UPDATE bridge.indicators SET next_at = bridge.now() + interval '1 second' WHERE turn_id = p_turn;
    END IF;
END
$$;
