-- Since when a conversation holds a message with one of its bot's `distress_words`; NULL: it holds none that the bridge
-- remembers.
CREATE OR REPLACE FUNCTION bridge.distress_since(p_match uuid) RETURNS timestamptz
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    RETURN (SELECT min(d.first_at) FROM bridge.distress d WHERE d.match_id = p_match);
END
$$;
