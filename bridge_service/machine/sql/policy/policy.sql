-- What holds for a bot now; NULL: for a bot without a row of its own. The only reader of bridge.bots, except for the
-- functions beside it. Each row overrides what the rows before it say: built in, environment, default, the bot's own.
--
-- A minimum and its maximum are overridden together, so the answer never has a minimum above its maximum: a row that sets
-- only one of the two moves the other one along. What a row switches off is NULL.
CREATE OR REPLACE FUNCTION bridge.policy(p_bot uuid)
RETURNS TABLE (
    grouping_delay double precision, grouping_max double precision, initiation_delay_min double precision,
    initiation_delay_max double precision, initiation_probability double precision, thinking_delay_min double precision,
    thinking_delay_max double precision, typing_speed_cps double precision, max_merges integer, second_message text,
    timezone text, ignore_older_days double precision, persona text, openai_model text, openai_fallback_model text,
    openai_temperature double precision, openai_max_tokens integer, openai_history_tokens integer,
    openai_price_input double precision, openai_price_output double precision, limit_calls_person_day integer,
    limit_tokens_bot_day bigint, over_limit text)
LANGUAGE plpgsql STABLE ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    b bridge.bots%ROWTYPE;
BEGIN
    grouping_delay := 15;
    grouping_max := 60;
    initiation_delay_min := 120;
    initiation_delay_max := 300;
    initiation_probability := 0.5;
    thinking_delay_min := 2;
    thinking_delay_max := 15;
    typing_speed_cps := 3.5;
    max_merges := 3;
    second_message := 'merge';
    timezone := 'Europe/Paris';
    ignore_older_days := 15;
    openai_max_tokens := 400;
    openai_history_tokens := 4000;
    openai_price_input := 0;
    openai_price_output := 0;
    FOR b IN
        SELECT o.* FROM bridge.bots o
        WHERE o.scope IN ('environment', 'default') OR (o.scope = 'bot' AND o.bot_id = p_bot)
        ORDER BY o.scope DESC  -- environment, default, bot
    LOOP
        grouping_delay := coalesce(b.grouping_delay, grouping_delay);
        grouping_max := coalesce(b.grouping_max, grouping_max);
        -- least and greatest leave a NULL out.
        initiation_delay_min := coalesce(b.initiation_delay_min, least(initiation_delay_min, b.initiation_delay_max));
        initiation_delay_max := coalesce(b.initiation_delay_max, greatest(initiation_delay_max, b.initiation_delay_min));
        initiation_probability := coalesce(b.initiation_probability, initiation_probability);
        thinking_delay_min := coalesce(b.thinking_delay_min, least(thinking_delay_min, b.thinking_delay_max));
        thinking_delay_max := coalesce(b.thinking_delay_max, greatest(thinking_delay_max, b.thinking_delay_min));
        typing_speed_cps := coalesce(b.typing_speed_cps, typing_speed_cps);
        max_merges := coalesce(b.max_merges, max_merges);
        second_message := coalesce(b.second_message, second_message);
        timezone := coalesce(b.timezone, timezone);
        ignore_older_days := coalesce(b.ignore_older_days, ignore_older_days);
        persona := coalesce(b.persona, persona);
        openai_model := coalesce(b.openai_model, openai_model);
        openai_fallback_model := coalesce(b.openai_fallback_model, openai_fallback_model);
        openai_temperature := coalesce(b.openai_temperature, openai_temperature);
        openai_max_tokens := coalesce(b.openai_max_tokens, openai_max_tokens);
        openai_history_tokens := coalesce(b.openai_history_tokens, openai_history_tokens);
        openai_price_input := coalesce(b.openai_price_input, openai_price_input);
        openai_price_output := coalesce(b.openai_price_output, openai_price_output);
        limit_calls_person_day := coalesce(b.limit_calls_person_day, limit_calls_person_day);
        limit_tokens_bot_day := coalesce(b.limit_tokens_bot_day, limit_tokens_bot_day);
        over_limit := coalesce(b.over_limit, over_limit);
    END LOOP;
    persona := nullif(persona, 'none');
    openai_fallback_model := nullif(openai_fallback_model, 'none');
    openai_temperature := nullif(openai_temperature, -1);
    limit_calls_person_day := nullif(limit_calls_person_day, 0);
    limit_tokens_bot_day := nullif(limit_tokens_bot_day, 0);
    over_limit := nullif(over_limit, 'none');
    RETURN NEXT;
END
$$;
