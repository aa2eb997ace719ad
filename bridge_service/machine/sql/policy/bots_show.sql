-- What holds for a bot, and which row says so: {column: {value, source: bot | default | environment | built in}}.
-- p_bot NULL: for a bot without a row of its own
--
-- policy.sql moves a minimum and its maximum together, so a value may stand in the row under its partner's name. What a
-- row switches off stands there as 'none', 0, -1 or an empty list.
CREATE OR REPLACE FUNCTION bridge.bots_show(p_bot uuid) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_object_agg(v.name, jsonb_build_object('value', v.value, 'source', coalesce((
        SELECT b.scope FROM bridge.bots b
        WHERE (b.bot_id = p_bot OR b.bot_id IS NULL)
          AND (v.value IN (to_jsonb(b) -> v.name,
                           to_jsonb(b) -> replace(v.name, '_min', '_max'), to_jsonb(b) -> replace(v.name, '_max', '_min'))
               OR (v.value = 'null' AND to_jsonb(b) -> v.name IN ('"none"', '0', '-1', '[]')))
        ORDER BY b.scope LIMIT 1), 'built in')))
    FROM bridge.policy(p_bot) p CROSS JOIN LATERAL jsonb_each(to_jsonb(p)) AS v (name, value)
$$;
