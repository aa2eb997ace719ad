-- One action of the console, and its row in bridge.actions, in one transaction: neither is there without the other. An
-- action that finds nothing to do is written down, too. An error, such as a lock that is held, undoes both.
--
-- p_who, p_address: who asks, as the console was told
-- p_what: retry, drop, set, pause or resume
-- p_on: the turn's id; of `set` the bot's id or `default`; of the last two see act_pause.sql
-- p_values: of `set`, see set_bot.sql; of `pause`, see act_pause.sql
--
-- Returns what retry_dead.sql, drop_dead.sql, set_bot.sql or act_pause.sql returns.
CREATE OR REPLACE FUNCTION bridge.act(p_who text, p_address text, p_what text, p_on text, p_values jsonb DEFAULT NULL)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    v_answer jsonb;
BEGIN
    v_answer := CASE p_what
        WHEN 'retry' THEN bridge.retry_dead(p_on::bigint)
        WHEN 'drop' THEN bridge.drop_dead(p_on::bigint)
        WHEN 'set' THEN bridge.set_bot(nullif(p_on, 'default')::uuid, p_values)
        WHEN 'pause' THEN bridge.act_pause(p_who, p_what, p_on, p_values)
        WHEN 'resume' THEN bridge.act_pause(p_who, p_what, p_on, p_values)
    END;
    INSERT INTO bridge.actions (at, who, address, what, on_what, outcome)
    VALUES (bridge.now(), left(p_who, 200), left(p_address, 200), p_what,
            left(concat_ws(' ', p_on, p_values::text), 1000), v_answer ->> 'outcome');
    RETURN v_answer;
END
$$;
