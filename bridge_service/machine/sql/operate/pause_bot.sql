-- The operator lets a bot be silent in all its conversations until a time (NULL: until `resume_bot`), as pause.sql for one
-- match. A delivery that has begun is not waited for.
CREATE OR REPLACE FUNCTION bridge.pause_bot(p_bot uuid, p_until timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
BEGIN
    INSERT INTO bridge.pauses (bot_id, cause, since, until) VALUES (p_bot, 'paused', bridge.now(), p_until)
    ON CONFLICT (bot_id, cause) DO UPDATE SET until = EXCLUDED.until, who = NULL;
END
$$;
