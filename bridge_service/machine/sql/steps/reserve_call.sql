-- Reserves one call of a model before it is begun (M1). The same key gives the same answer, and
-- counts once.
--
-- p_token, p_number: the claim, and the number of the call within it
-- p_tokens_in, p_tokens_out: what it costs at most
-- p_seconds: after which its request times out
--
-- Where a limit rules, the answer is on disk before the call is begun: a reservation that a crash forgot would let more
-- calls pass. Without a limit it is only a figure. The budgets are locked after no turn, the bot's before the person's.
--
-- Returns {outcome: reserved | fenced}; or {outcome: over, cause: limit_calls | limit_tokens}: no call until tomorrow;
--   or {outcome: later, retry: seconds}: only the reservations of calls that are under way stand against it.
CREATE OR REPLACE FUNCTION bridge.reserve_call(
    p_token uuid, p_number integer, p_turn bigint, p_model text, p_tokens_in bigint, p_tokens_out bigint,
    p_seconds double precision)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
DECLARE
    t          bridge.turns%ROWTYPE;
    b          bridge.budgets%ROWTYPE;  -- the bot's
    p          record;
    v_now      timestamptz := bridge.now();
    v_day      date;
    v_person   uuid;
    v_calls    bigint;
    v_spent    bigint;
    v_underway bigint;
BEGIN
    PERFORM bridge.assert_read_committed();
    SELECT * INTO t FROM bridge.turns WHERE id = p_turn;
    SELECT limit_calls_person_day, limit_tokens_bot_day, timezone INTO p
    FROM bridge.policy(t.bot_id);  -- named: each column costs
    IF p.limit_calls_person_day IS NULL AND p.limit_tokens_bot_day IS NULL THEN
        SET LOCAL synchronous_commit = off;
    ELSIF current_setting('synchronous_commit') = 'off' THEN
        SET LOCAL synchronous_commit = on;
    END IF;
    PERFORM FROM bridge.calls c WHERE c.token = p_token AND c.number = p_number;
    IF FOUND THEN
        RETURN '{"outcome": "reserved"}';
    END IF;
    v_person := bridge.person_of(t.id);
    IF t.state IS DISTINCT FROM 'composing' OR t.token IS DISTINCT FROM p_token OR v_person IS NULL THEN
        RETURN '{"outcome": "fenced"}';
    END IF;

    v_day := (v_now AT TIME ZONE p.timezone)::date;
    INSERT INTO bridge.budgets (day, kind, owner_id) VALUES (v_day, 'bot', t.bot_id) ON CONFLICT DO NOTHING;
    SELECT * INTO b FROM bridge.budgets
    WHERE day = v_day AND kind = 'bot' AND owner_id = t.bot_id FOR NO KEY UPDATE;
    INSERT INTO bridge.budgets (day, kind, owner_id) VALUES (v_day, 'person', v_person) ON CONFLICT DO NOTHING;
    SELECT calls INTO v_calls FROM bridge.budgets
    WHERE day = v_day AND kind = 'person' AND owner_id = v_person FOR NO KEY UPDATE;

    v_spent := b.tokens_in + b.tokens_out + b.reserved_in + b.reserved_out + p_tokens_in + p_tokens_out;
    IF v_calls >= p.limit_calls_person_day THEN
        RETURN '{"outcome": "over", "cause": "limit_calls"}';
    ELSIF b.closed_limit >= p.limit_tokens_bot_day THEN
        RETURN '{"outcome": "over", "cause": "limit_tokens"}';
    ELSIF v_spent > p.limit_tokens_bot_day THEN
        SELECT coalesce(sum(c.reserved_in + c.reserved_out), 0) INTO v_underway FROM bridge.calls c
        WHERE c.bot_id = t.bot_id AND c.day = v_day AND c.tokens_in IS NULL AND c.ends_at > v_now;
        IF v_spent - v_underway <= p.limit_tokens_bot_day THEN
            RETURN '{"outcome": "later", "retry": 5}';
        END IF;
        UPDATE bridge.budgets SET closed_limit = p.limit_tokens_bot_day
        WHERE day = v_day AND kind = 'bot' AND owner_id = t.bot_id;
        RETURN '{"outcome": "over", "cause": "limit_tokens"}';
    END IF;

    INSERT INTO bridge.calls (
        token, number, turn_id, match_id, bot_id, person_id, model, day, begun_at, ends_at, reserved_in, reserved_out)
    VALUES (p_token, p_number, t.id, t.match_id, t.bot_id, v_person, p_model, v_day, v_now,
            v_now + make_interval(secs => p_seconds), p_tokens_in, p_tokens_out)
    ON CONFLICT (token, number) DO NOTHING;  -- the same call, asked for at the same time
    IF FOUND THEN
        UPDATE bridge.budgets
        SET calls = calls + 1, reserved_in = reserved_in + p_tokens_in, reserved_out = reserved_out + p_tokens_out
        WHERE day = v_day AND (kind, owner_id) IN (('bot', t.bot_id), ('person', v_person));
    END IF;
    RETURN '{"outcome": "reserved"}';
END
$$;
