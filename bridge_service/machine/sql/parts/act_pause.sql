-- Pauses or resumes a conversation or a bot for the console (act.sql), and notes in the pause who asked.
--
-- p_on: conversations/MATCH or bots/BOT
-- p_values: of `pause` {seconds}; null: until `resume`
--
-- Returns {outcome: paused | resumed | not_paused | no_bot}. Both can wait for a lock, as pause.sql and resume.sql do.
CREATE OR REPLACE FUNCTION bridge.act_pause(p_who text, p_what text, p_on text, p_values jsonb) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_bot   boolean := split_part(p_on, '/', 1) = 'bots';
    v_id    uuid := split_part(p_on, '/', 2);
    v_until timestamptz := bridge.now() + make_interval(secs => (p_values ->> 'seconds')::double precision);
    v_done  boolean;
BEGIN
    IF p_what = 'resume' THEN
        v_done := CASE WHEN v_bot THEN bridge.resume_bot(v_id) ELSE bridge.resume(v_id) END;
        RETURN jsonb_build_object('outcome', CASE WHEN v_done THEN 'resumed' ELSE 'not_paused' END);
    ELSIF v_bot THEN
        PERFORM bridge.pause_bot(v_id, v_until);
    ELSIF NOT bridge.pause(v_id, v_until) THEN
        RETURN jsonb_build_object('outcome', 'no_bot');
    END IF;
    UPDATE bridge.pauses p SET who = left(p_who, 200)
    WHERE (CASE WHEN v_bot THEN p.bot_id ELSE p.match_id END) = v_id AND p.cause = 'paused';
    RETURN jsonb_build_object('outcome', 'paused');
END
$$;
