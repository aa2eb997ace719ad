-- Writes the row `environment` of bridge.bots: what a scheduler's environment sets, by column; what it does not name is
-- NULL. The row is written only if it differs. Returns whether it was.
CREATE OR REPLACE FUNCTION bridge.set_environment(p_values jsonb) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    v_new bridge.bots%ROWTYPE;
BEGIN
    v_new := jsonb_populate_record(NULL::bridge.bots, (p_values - 'bot_id') || '{"scope": "environment"}');
    PERFORM FROM bridge.bots b WHERE b.scope = 'environment' AND b IS NOT DISTINCT FROM v_new;
    IF FOUND THEN
        RETURN false;
    END IF;
    LOCK TABLE bridge.bots IN SHARE ROW EXCLUSIVE MODE;  -- as in set_bot
    DELETE FROM bridge.bots WHERE scope = 'environment';
    INSERT INTO bridge.bots SELECT v_new.*;
    RETURN true;
END
$$;
