-- Until when the bot is silent in a match by a pause of the match or of the bot (H4), the longest one; 'infinity' for one
-- without an end; NULL: it is not. What a bot left is no pause: see is_left.sql.
CREATE OR REPLACE FUNCTION bridge.paused_until(p_match uuid, p_bot uuid) RETURNS timestamptz
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_now timestamptz := bridge.now();
BEGIN
    RETURN (SELECT max(coalesce(p.until, 'infinity')) FROM bridge.pauses p
            WHERE (p.match_id = p_match OR p.bot_id = p_bot) AND p.cause <> 'left' AND (p.until > v_now) IS NOT FALSE);
END
$$;
