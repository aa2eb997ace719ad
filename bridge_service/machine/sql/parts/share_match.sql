-- Holds a match against deliveries until the caller's transaction ends (H2): by the match's event row, or by an advisory lock
-- if it has none.
CREATE OR REPLACE FUNCTION bridge.share_match(p_match uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = 0
SET enable_seqscan = off AS $$
BEGIN
    PERFORM FROM bridge.events e WHERE e.kind = 'match' AND e.match_id = p_match FOR KEY SHARE;
    IF NOT FOUND THEN
        PERFORM pg_advisory_xact_lock_shared(bridge.old_match_key(p_match));
        -- keep_match may have made the row meanwhile.
        PERFORM FROM bridge.events e WHERE e.kind = 'match' AND e.match_id = p_match FOR KEY SHARE;
    END IF;
END
$$;
