-- The policy of several bots, each read once: {bot_id: {grouping_delay, ...}}. Its plan is kept: to make it takes longer than
-- to run it for ten bots, and PostgreSQL would make it anew for each array.
CREATE OR REPLACE FUNCTION bridge.policies(p_bots uuid[]) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN (SELECT coalesce(jsonb_object_agg(b.bot_id, to_jsonb(p)), '{}')
            FROM (SELECT DISTINCT u.bot_id FROM unnest(p_bots) AS u (bot_id)) b
            CROSS JOIN LATERAL bridge.policy(b.bot_id) p);
END
$$;
