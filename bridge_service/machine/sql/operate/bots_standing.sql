-- Whether these bots answer now, for the console: {bot: {active, asleep_until, pause: {since, until, who}}}. asleep_until:
-- see rest_of.sql; pause: the bot's own, NULL if it has none. Each policy is read once.
CREATE OR REPLACE FUNCTION bridge.bots_standing(p_bots uuid[]) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_now    timestamptz := bridge.now();
    v_policy jsonb := bridge.policies(p_bots);
    v_asleep jsonb := '{}';
BEGIN
    IF bridge.has_hours() THEN
        SELECT coalesce(jsonb_object_agg(r.bot_id, r.asleep_until), '{}') INTO v_asleep FROM bridge.rest_of(p_bots, v_now) r;
    END IF;
    RETURN (SELECT coalesce(jsonb_object_agg(b.bot, jsonb_build_object(
                'active', b.policy -> 'active', 'asleep_until', v_asleep -> b.bot,
                'pause', (SELECT jsonb_build_object('since', p.since, 'until', p.until, 'who', p.who)
                          FROM bridge.pauses p
                          WHERE p.bot_id = b.bot::uuid AND p.cause = 'paused' AND (p.until > v_now) IS NOT FALSE))), '{}')
            FROM jsonb_each(v_policy) AS b (bot, policy));
END
$$;
