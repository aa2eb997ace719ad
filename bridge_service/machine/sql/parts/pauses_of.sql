-- Why the bot does not answer in a match now, for operators: [{cause, since, until, turn_id, bot_id, who}, ...], oldest first.
-- `bot_id` is set if the pause is of the bot; `until` is null for what lasts until `resume`.
CREATE OR REPLACE FUNCTION bridge.pauses_of(p_match uuid, p_bot uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_now timestamptz := bridge.now();
BEGIN
    RETURN (SELECT coalesce(jsonb_agg(jsonb_build_object(
                'cause', p.cause, 'since', p.since, 'until', p.until, 'turn_id', p.turn_id, 'bot_id', p.bot_id, 'who', p.who)
                ORDER BY p.since), '[]')
            FROM bridge.pauses p
            WHERE (p.match_id = p_match OR p.bot_id = p_bot) AND (p.until > v_now) IS NOT FALSE);
END
$$;
