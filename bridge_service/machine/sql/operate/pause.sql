-- The app, or an operator, lets the bot be silent in a match until a time (NULL: until `resume`). Messages are captured and
-- grouped meanwhile, and answered together at the end. A later call moves the end. After this call has committed no reply
-- commits there: it holds the lock of a human's message (H2) until the caller's transaction ends. Only of a bot with
-- TAKEOVER_PAUSE=0 a delivery that has begun is not waited for.
-- Returns whether the match has exactly one bot; else nothing is done.
CREATE OR REPLACE FUNCTION bridge.pause(p_match uuid, p_until timestamptz) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = 0
SET enable_seqscan = off AS $$
BEGIN
    PERFORM FROM bridge.conversation(p_match) c;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM bridge.share_match(p_match);
    INSERT INTO bridge.pauses (match_id, cause, since, until) VALUES (p_match, 'paused', bridge.now(), p_until)
    ON CONFLICT (match_id, cause) DO UPDATE SET until = EXCLUDED.until, who = NULL;
    RETURN true;
END
$$;
