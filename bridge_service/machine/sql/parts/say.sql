-- Says a text in the bot's name: the only caller of `deliver`. While it runs, a setting of the transaction names the match,
-- so that the triggers know what is inserted there for the bridge's own (H1). An exception takes the setting back, since each
-- caller catches it in a subtransaction.
--
-- Returns what `deliver` returns; the parameters are its own.
CREATE OR REPLACE FUNCTION bridge.say(
    p_turn bigint, p_message uuid, p_match uuid, p_bot uuid, p_content text, p_created_at timestamptz)
RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_said uuid;
BEGIN
    PERFORM set_config('bridge.says', p_match::text, true);
    v_said := bridge.deliver(p_turn, p_message, p_match, p_bot, p_content, p_created_at);
    PERFORM set_config('bridge.says', '', true);
    RETURN v_said;
END
$$;
