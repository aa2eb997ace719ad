-- What holds for a bot now; NULL: for a bot without a row of its own. The only reader of bridge.bots, except for the
-- functions in ../policy. Each row overrides what the rows before it say: built in, environment, default, the bot's own.
--
-- A minimum and its maximum are overridden together, so the answer never has a minimum above its maximum: a row that sets
-- only one of the two moves the other one along. What a row switches off is NULL.
--
-- PostgreSQL inlines it: name the columns that you need, and nothing else is computed. (As conversation.sql: no SET, and the
-- caller's rights.)
CREATE OR REPLACE FUNCTION bridge.policy(p_bot uuid)
RETURNS TABLE (
    grouping_delay double precision, grouping_max double precision, initiation_delay_min double precision,
    initiation_delay_max double precision, initiation_probability double precision, thinking_delay_min double precision,
    thinking_delay_max double precision, typing_speed_cps double precision, max_merges integer, second_message text,
    timezone text, ignore_older_days double precision, persona text, openai_model text, openai_fallback_model text,
    openai_temperature double precision, openai_max_tokens integer, openai_history_tokens integer,
    openai_price_input double precision, openai_price_output double precision, limit_calls_person_day integer,
    limit_tokens_bot_day bigint, over_limit text, grouping_mode text, reply_parts integer, part_pause_min double precision,
    part_pause_max double precision, bot_typing boolean, takeover_pause double precision, quiet_hours text,
    quiet_hours_weekend text, quiet_spread double precision, disclosure text, follow_up_after double precision,
    limit_replies_hour integer, active boolean, distress_words text[], distress_text text)
LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT
        coalesce(b.grouping_delay, d.grouping_delay, e.grouping_delay, 15),
        coalesce(b.grouping_max, d.grouping_max, e.grouping_max, 60),
        coalesce(b.initiation_delay_min, least(f.initiation_delay_min, b.initiation_delay_max)),
        coalesce(b.initiation_delay_max, greatest(f.initiation_delay_max, b.initiation_delay_min)),
        coalesce(b.initiation_probability, d.initiation_probability, e.initiation_probability, 0.5),
        coalesce(b.thinking_delay_min, least(f.thinking_delay_min, b.thinking_delay_max)),
        coalesce(b.thinking_delay_max, greatest(f.thinking_delay_max, b.thinking_delay_min)),
        coalesce(b.typing_speed_cps, d.typing_speed_cps, e.typing_speed_cps, 3.5),
        coalesce(b.max_merges, d.max_merges, e.max_merges, 3),
        coalesce(b.second_message, d.second_message, e.second_message, 'merge'),
        coalesce(b.timezone, d.timezone, e.timezone, 'Europe/Paris'),
        coalesce(b.ignore_older_days, d.ignore_older_days, e.ignore_older_days, 15),
        nullif(coalesce(b.persona, d.persona, e.persona), 'none'),
        coalesce(b.openai_model, d.openai_model, e.openai_model),
        nullif(coalesce(b.openai_fallback_model, d.openai_fallback_model, e.openai_fallback_model), 'none'),
        nullif(coalesce(b.openai_temperature, d.openai_temperature, e.openai_temperature), -1),
        coalesce(b.openai_max_tokens, d.openai_max_tokens, e.openai_max_tokens, 400),
        coalesce(b.openai_history_tokens, d.openai_history_tokens, e.openai_history_tokens, 4000),
        coalesce(b.openai_price_input, d.openai_price_input, e.openai_price_input, 0),
        coalesce(b.openai_price_output, d.openai_price_output, e.openai_price_output, 0),
        nullif(coalesce(b.limit_calls_person_day, d.limit_calls_person_day, e.limit_calls_person_day), 0),
        nullif(coalesce(b.limit_tokens_bot_day, d.limit_tokens_bot_day, e.limit_tokens_bot_day), 0),
        nullif(coalesce(b.over_limit, d.over_limit, e.over_limit), 'none'),
        coalesce(b.grouping_mode, d.grouping_mode, e.grouping_mode, 'fixed'),
        coalesce(b.reply_parts, d.reply_parts, e.reply_parts, 1),
        coalesce(b.part_pause_min, least(f.part_pause_min, b.part_pause_max)),
        coalesce(b.part_pause_max, greatest(f.part_pause_max, b.part_pause_min)),
        coalesce(b.bot_typing, d.bot_typing, e.bot_typing, true),
        coalesce(b.takeover_pause, d.takeover_pause, e.takeover_pause, 3600),
        nullif(coalesce(b.quiet_hours, d.quiet_hours, e.quiet_hours), 'none'),
        nullif(coalesce(b.quiet_hours_weekend, b.quiet_hours, d.quiet_hours_weekend, d.quiet_hours, e.quiet_hours_weekend,
                        e.quiet_hours), 'none'),
        coalesce(b.quiet_spread, d.quiet_spread, e.quiet_spread, 300),
        nullif(coalesce(b.disclosure, d.disclosure, e.disclosure), 'none'),
        nullif(coalesce(b.follow_up_after, d.follow_up_after, e.follow_up_after), 0),
        nullif(coalesce(b.limit_replies_hour, d.limit_replies_hour, e.limit_replies_hour), 0),
        coalesce(b.active, d.active, e.active, true),
        nullif(coalesce(b.distress_words, d.distress_words, e.distress_words), '{}'),
        nullif(coalesce(b.distress_text, d.distress_text, e.distress_text), 'none')
    FROM (VALUES (true)) AS always (one)
    LEFT JOIN bridge.bots e ON e.scope = 'environment' AND e.bot_id IS NULL
    LEFT JOIN bridge.bots d ON d.scope = 'default' AND d.bot_id IS NULL
    LEFT JOIN bridge.bots b ON b.scope = 'bot' AND b.bot_id = p_bot
    -- least and greatest leave a NULL out.
    CROSS JOIN LATERAL (
        SELECT coalesce(e.initiation_delay_min, least(120, e.initiation_delay_max)) AS initiation_delay_min,
               coalesce(e.initiation_delay_max, greatest(300, e.initiation_delay_min)) AS initiation_delay_max,
               coalesce(e.thinking_delay_min, least(2, e.thinking_delay_max)) AS thinking_delay_min,
               coalesce(e.thinking_delay_max, greatest(15, e.thinking_delay_min)) AS thinking_delay_max,
               coalesce(e.part_pause_min, least(1.5, e.part_pause_max)) AS part_pause_min,
               coalesce(e.part_pause_max, greatest(3, e.part_pause_min)) AS part_pause_max) g
    CROSS JOIN LATERAL (
        SELECT coalesce(d.initiation_delay_min, least(g.initiation_delay_min, d.initiation_delay_max)) AS initiation_delay_min,
               coalesce(d.initiation_delay_max, greatest(g.initiation_delay_max, d.initiation_delay_min)) AS initiation_delay_max,
               coalesce(d.thinking_delay_min, least(g.thinking_delay_min, d.thinking_delay_max)) AS thinking_delay_min,
               coalesce(d.thinking_delay_max, greatest(g.thinking_delay_max, d.thinking_delay_min)) AS thinking_delay_max,
               coalesce(d.part_pause_min, least(g.part_pause_min, d.part_pause_max)) AS part_pause_min,
               coalesce(d.part_pause_max, greatest(g.part_pause_max, d.part_pause_min)) AS part_pause_max) f
$$;
