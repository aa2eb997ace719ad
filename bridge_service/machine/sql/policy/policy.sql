-- What holds for a bot now; NULL: for a bot without a row of its own. The only reader of bridge.bots, except for the
-- functions beside it. Each row overrides what the rows before it say: built in, environment, default, the bot's own.
--
-- A minimum and its maximum are overridden together, so the answer never has a minimum above its maximum: a row that sets
-- only one of the two moves the other one along.
CREATE OR REPLACE FUNCTION bridge.policy(p_bot uuid)
RETURNS TABLE (
    grouping_delay double precision, initiation_delay_min double precision, initiation_delay_max double precision,
    initiation_probability double precision, thinking_delay_min double precision, thinking_delay_max double precision,
    typing_speed_cps double precision, max_merges integer, ignore_older_days double precision)
LANGUAGE plpgsql STABLE ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    b bridge.bots%ROWTYPE;
BEGIN
    grouping_delay := 15;
    initiation_delay_min := 120;
    initiation_delay_max := 300;
    initiation_probability := 0.5;
    thinking_delay_min := 2;
    thinking_delay_max := 15;
    typing_speed_cps := 3.5;
    max_merges := 3;
    ignore_older_days := 15;
    FOR b IN
        SELECT o.* FROM bridge.bots o
        WHERE o.scope IN ('environment', 'default') OR (o.scope = 'bot' AND o.bot_id = p_bot)
        ORDER BY o.scope DESC  -- environment, default, bot
    LOOP
        grouping_delay := coalesce(b.grouping_delay, grouping_delay);
        -- least and greatest leave a NULL out.
        initiation_delay_min := coalesce(b.initiation_delay_min, least(initiation_delay_min, b.initiation_delay_max));
        initiation_delay_max := coalesce(b.initiation_delay_max, greatest(initiation_delay_max, b.initiation_delay_min));
        initiation_probability := coalesce(b.initiation_probability, initiation_probability);
        thinking_delay_min := coalesce(b.thinking_delay_min, least(thinking_delay_min, b.thinking_delay_max));
        thinking_delay_max := coalesce(b.thinking_delay_max, greatest(thinking_delay_max, b.thinking_delay_min));
        typing_speed_cps := coalesce(b.typing_speed_cps, typing_speed_cps);
        max_merges := coalesce(b.max_merges, max_merges);
        ignore_older_days := coalesce(b.ignore_older_days, ignore_older_days);
    END LOOP;
    RETURN NEXT;
END
$$;
