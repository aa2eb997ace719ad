-- Where a conversation stands, for its page on the console, beside its turns:
--   bot_id: NULL if the app has no such conversation any more
--   standing: as state.sql
--   pauses: as pauses_of.sql
--   disclosure: {said_at, version}, and distress: {first_at, last_at}; NULL: none
CREATE OR REPLACE FUNCTION bridge.standing(p_match uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_bot uuid := (SELECT c.bot_id FROM bridge.conversation(p_match) c);
BEGIN
    RETURN jsonb_build_object(
        'bot_id', v_bot, 'standing', bridge.state(p_match), 'pauses', bridge.pauses_of(p_match, v_bot),
        'disclosure', (SELECT jsonb_build_object('said_at', d.said_at, 'version', d.version)
                       FROM bridge.disclosures d WHERE d.match_id = p_match ORDER BY d.said_at LIMIT 1),
        'distress', (SELECT jsonb_build_object('first_at', min(d.first_at), 'last_at', max(d.last_at))
                     FROM bridge.distress d WHERE d.match_id = p_match HAVING count(*) > 0));
END
$$;
