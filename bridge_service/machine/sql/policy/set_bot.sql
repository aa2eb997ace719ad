-- Writes what the operator sets for a bot, by column; NULL takes the override back. What is not named stays as it is.
--
-- p_bot NULL: the row `default`
--
-- Returns {outcome: set}, or {outcome: refused, constraint} of bridge.bots, which has the bounds. An unknown column is left
-- out.
CREATE OR REPLACE FUNCTION bridge.set_bot(p_bot uuid, p_values jsonb) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    v_bot        bridge.bots%ROWTYPE;
    v_constraint text;
BEGIN
    INSERT INTO bridge.bots (scope, bot_id)
    VALUES (CASE WHEN p_bot IS NULL THEN 'default' ELSE 'bot' END, p_bot)
    ON CONFLICT ON CONSTRAINT bots_one_row DO NOTHING;
    SELECT * INTO v_bot FROM bridge.bots
    WHERE scope = CASE WHEN p_bot IS NULL THEN 'default' ELSE 'bot' END AND bot_id IS NOT DISTINCT FROM p_bot
    FOR NO KEY UPDATE;
    v_bot := jsonb_populate_record(v_bot, p_values - 'scope' - 'bot_id');
    UPDATE bridge.bots
    SET (grouping_delay, initiation_delay_min, initiation_delay_max, initiation_probability,
         thinking_delay_min, thinking_delay_max, typing_speed_cps, max_merges, ignore_older_days)
      = ROW (v_bot.grouping_delay, v_bot.initiation_delay_min, v_bot.initiation_delay_max, v_bot.initiation_probability,
             v_bot.thinking_delay_min, v_bot.thinking_delay_max, v_bot.typing_speed_cps, v_bot.max_merges,
             v_bot.ignore_older_days)
    WHERE scope = v_bot.scope AND bot_id IS NOT DISTINCT FROM v_bot.bot_id;
    RETURN '{"outcome": "set"}';
EXCEPTION WHEN check_violation THEN
    GET STACKED DIAGNOSTICS v_constraint = CONSTRAINT_NAME;
    RETURN jsonb_build_object('outcome', 'refused', 'constraint', v_constraint);
END
$$;
