-- Why a turn was cancelled; the journal asks it of what group_events ended at once. NULL: it was not. VOLATILE: it sees what the
-- statement that calls it has written.
CREATE OR REPLACE FUNCTION bridge.reason_of(p_turn bigint) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    RETURN (SELECT t.reason FROM bridge.turns t WHERE t.id = p_turn);
END
$$;
