-- Whether the conversation has an active turn, which a message that was grouped just now may overtake. It is
-- called beside group_events, so that a lone message costs no round trip. VOLATILE: it sees what became active meanwhile.
CREATE OR REPLACE FUNCTION bridge.beside_active(p_match uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN bridge.active_turn(p_match) IS NOT NULL;
END
$$;
