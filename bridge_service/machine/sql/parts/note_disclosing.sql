-- At the commit of a change of bridge.bots, for each row: notes since when the row says something else of DISCLOSURE. Another
-- text is no such change. So `verify` knows since when a bot has to disclose, whatever the deliveries did (undisclosed.sql).
CREATE OR REPLACE FUNCTION bridge.note_disclosing() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    v_scope text := CASE TG_OP WHEN 'DELETE' THEN OLD.scope ELSE NEW.scope END;
    v_bot   uuid := CASE TG_OP WHEN 'DELETE' THEN OLD.bot_id ELSE NEW.bot_id END;
    v_says  boolean;
BEGIN
    SELECT b.disclosure <> 'none' INTO v_says FROM bridge.bots b
    WHERE b.scope = v_scope AND b.bot_id IS NOT DISTINCT FROM v_bot;
    INSERT INTO bridge.disclosing AS known (scope, bot_id, says, since)
    SELECT v_scope, v_bot, v_says, bridge.now()
    WHERE v_says IS NOT NULL
       OR EXISTS (SELECT FROM bridge.disclosing d WHERE d.scope = v_scope AND d.bot_id IS NOT DISTINCT FROM v_bot)
    ON CONFLICT (scope, bot_id) DO UPDATE SET says = EXCLUDED.says, since = EXCLUDED.since
    WHERE known.says IS DISTINCT FROM EXCLUDED.says;
    RETURN NULL;
END
$$;
