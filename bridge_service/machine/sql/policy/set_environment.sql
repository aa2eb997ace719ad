-- Writes the row `environment` of bridge.bots: what a scheduler's environment sets, by column; what it does not name is
-- NULL. The row is written only if it differs. Returns whether it was.
CREATE OR REPLACE FUNCTION bridge.set_environment(p_values jsonb) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
BEGIN
    INSERT INTO bridge.bots AS old
    SELECT (jsonb_populate_record(NULL::bridge.bots, (p_values - 'bot_id') || '{"scope": "environment"}')).*
    ON CONFLICT ON CONSTRAINT bots_one_row DO UPDATE
    SET (grouping_delay, initiation_delay_min, initiation_delay_max, initiation_probability,
         thinking_delay_min, thinking_delay_max, typing_speed_cps, max_merges, ignore_older_days)
      = ROW (EXCLUDED.grouping_delay, EXCLUDED.initiation_delay_min, EXCLUDED.initiation_delay_max,
             EXCLUDED.initiation_probability, EXCLUDED.thinking_delay_min, EXCLUDED.thinking_delay_max,
             EXCLUDED.typing_speed_cps, EXCLUDED.max_merges, EXCLUDED.ignore_older_days)
    WHERE old IS DISTINCT FROM EXCLUDED;
    RETURN FOUND;
END
$$;
