-- The rows of policy, `environment` and `default` first, each with what it sets: {bot, values: {column: value}}.
CREATE OR REPLACE FUNCTION bridge.bots_list() RETURNS SETOF jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('bot', coalesce(b.bot_id::text, b.scope),
                              'values', jsonb_strip_nulls(to_jsonb(b) - 'scope' - 'bot_id'))
    FROM bridge.bots b
    ORDER BY b.scope DESC, b.bot_id
$$;
