-- Writes what the operator sets for a bot, by column; NULL takes the override back. What is not named stays as it is.
--
-- p_bot NULL: the row `default`. A bot's row in which nothing is left goes.
--
-- Returns {outcome: set}, or {outcome: refused, constraint} of bridge.bots, which has the bounds. An unknown column is
--   left out.
CREATE OR REPLACE FUNCTION bridge.set_bot(p_bot uuid, p_values jsonb) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    v_scope      text := CASE WHEN p_bot IS NULL THEN 'default' ELSE 'bot' END;
    v_bot        bridge.bots%ROWTYPE;
    v_constraint text;
BEGIN
    LOCK TABLE bridge.bots IN SHARE ROW EXCLUSIVE MODE;  -- one writer at a time; readers do not wait
    DELETE FROM bridge.bots WHERE scope = v_scope AND bot_id IS NOT DISTINCT FROM p_bot RETURNING * INTO v_bot;
    INSERT INTO bridge.bots SELECT (jsonb_populate_record(
        v_bot, p_values || jsonb_build_object('scope', v_scope, 'bot_id', p_bot))).*;
    DELETE FROM bridge.bots b
    WHERE b.scope = 'bot' AND b.bot_id = p_bot AND jsonb_strip_nulls(to_jsonb(b)) - '{scope,bot_id}'::text[] = '{}';
    RETURN '{"outcome": "set"}';
EXCEPTION
    WHEN check_violation THEN
        GET STACKED DIAGNOSTICS v_constraint = CONSTRAINT_NAME;
        RETURN jsonb_build_object('outcome', 'refused', 'constraint', v_constraint);
    WHEN invalid_parameter_value THEN  -- PostgreSQL knows no time zone of this name
        RETURN '{"outcome": "refused", "constraint": "bots_timezone_check"}';
END
$$;
