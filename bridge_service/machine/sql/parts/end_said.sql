-- Ends a turn of which a message was said already: as `answered`, and the rest is withheld (P0). Its events stay in it.
-- NULL if nothing was said yet; then nothing was done. A step that moves a turn's events to another turn asks here first.
--
-- p_reason: what ends it
-- Internal: the caller holds the turn's lock. Returns what interruption.sql says.
CREATE OR REPLACE FUNCTION bridge.end_said(p_turn bigint, p_reason text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
BEGIN
    IF (SELECT t.parts_out > 0 FROM bridge.turns t WHERE t.id = p_turn) THEN
        PERFORM bridge.end_turn(p_turn, 'cancelled', p_reason);  -- which makes it `answered`
        RETURN bridge.interruption(p_turn);
    END IF;
    RETURN NULL;
END
$$;
