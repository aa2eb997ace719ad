-- queued --> composing, by one worker, fenced by its token. Also composing without a token: a turn whose worker died or
-- failed. There is nothing to do for any other turn, nor for a failed one before its `retry_at` (T5).
--
-- p_token: a fresh random uuid made by the worker. If the answer is lost, a call with the same token returns it again
--   (T6)
-- p_lease: seconds until the turn is taken away again, unless renewed
-- p_lines: how many earlier messages to return as history
-- p_plain: whether the call to the responder cannot be ended; then no newer message overtakes it (E3). A worker of the
--   version before says nothing, and its calls are all of this kind.
--
-- Returns {outcome: claimed, pace: the columns of policy.sql that make the pause, bot_typing: whether its indicator is shown,
--   persona, model, local_time, utc_offset in seconds, most_parts and part_pause if the reply may have several messages,
--   ...the task} or {outcome: nothing | busy | superseded | cancelled | held | dead, ...}. A claim before `retry_at` also
--   returns `early`; one that finds a word of distress also `distress` (note_distress.sql).
CREATE OR REPLACE FUNCTION bridge.claim(
    p_turn bigint, p_token uuid, p_lease double precision, p_lines integer, p_plain boolean DEFAULT true)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
DECLARE
    t          bridge.turns%ROWTYPE;
    v_events   bigint[];
    v_messages uuid[];
    v_now      timestamptz := bridge.now();
    v_policy   record;
    v_task     jsonb;
    v_held     jsonb;
    v_waiting  bigint;
    v_raised   jsonb := '{}';
BEGIN
    PERFORM bridge.assert_read_committed();
    SET LOCAL synchronous_commit = off;  -- lost in a crash, it is done again; and its token fits no more (T6)
    -- The turn first. A later statement reads what it covers, or an event that joined while the claim waited for this
    -- lock would be neither in the draft nor in a newer turn (T3).
    SELECT * INTO t FROM bridge.turns WHERE id = p_turn FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'nothing', 'state', 'unknown');
    ELSIF t.state = 'composing' AND t.token = p_token THEN
        NULL;
    ELSIF NOT (t.state = 'queued' OR (t.state = 'composing' AND t.token IS NULL)) THEN
        RETURN jsonb_build_object('outcome', 'nothing', 'state', t.state);
    ELSIF t.retry_at > bridge.now() THEN
        RETURN jsonb_build_object('outcome', 'nothing', 'state', t.state, 'early', true);
    ELSIF t.state = 'queued' AND bridge.waits_for_active(t.id, t.match_id) THEN
        RETURN jsonb_build_object('outcome', 'busy');
    ELSIF bridge.answers(t.kind) THEN
        PERFORM bridge.take_along(t.id, t.match_id);
    END IF;
    -- No message joins or leaves an active turn, so the same token finds the same. A change may join it (X1), and stands
    -- before the messages here: the last event of `covers` is the newest message (known_lines.sql).
    SELECT coalesce(array_agg(e.id ORDER BY e.kind = 'message', e.id), '{}'),
           coalesce(array_agg(e.message_id ORDER BY e.id) FILTER (WHERE e.kind = 'message'), '{}')
    INTO v_events, v_messages
    FROM bridge.events e WHERE e.turn_id = t.id;

    SELECT p.thinking_delay_min, p.thinking_delay_max, p.typing_speed_cps, p.timezone, p.persona, p.openai_model,
           p.openai_fallback_model, p.openai_temperature, p.openai_max_tokens, p.openai_history_tokens,
           p.limit_calls_person_day, p.limit_tokens_bot_day, p.limit_replies_hour, p.quiet_hours,
           p.quiet_hours_weekend, p.distress_words, p.reply_parts, p.active, p.follow_up_after,
           bridge.has_typing() AND p.bot_typing AS bot_typing,
           EXISTS (SELECT FROM bridge.pauses s WHERE s.match_id = t.match_id OR s.bot_id = t.bot_id) AS paused
    INTO v_policy FROM bridge.policy(t.bot_id) p;  -- named: each column costs
    v_task := bridge.task(t, v_messages, p_lines);
    IF v_task ? 'reason' THEN
        RETURN bridge.cancel_turn(t.id, v_task ->> 'reason');
    ELSIF NOT v_policy.active THEN
        RETURN bridge.cancel_turn(t.id, 'off');
    ELSIF t.follows IS NOT NULL AND v_policy.follow_up_after IS NULL THEN
        RETURN bridge.cancel_turn(t.id, 'off');
    ELSIF v_task ? 'error' THEN
        PERFORM bridge.end_turn(t.id, 'dead', NULL, v_task ->> 'error');
        RETURN jsonb_build_object('outcome', 'dead', 'error', split_part(v_task ->> 'error', ':', 1), 'match_id', t.match_id,
                                  'attempts', t.attempts, 'next_turn', bridge.next_turn(t.match_id));
    END IF;
    IF v_policy.distress_words IS NOT NULL THEN
        v_raised := bridge.note_distress(t, p_token, v_task -> 'messages', v_policy.distress_words);
    END IF;
    IF t.token IS NULL AND (
        v_policy.paused OR
        num_nonnulls(v_policy.limit_calls_person_day, v_policy.limit_tokens_bot_day, v_policy.limit_replies_hour) > 0
        OR num_nonnulls(v_policy.quiet_hours, v_policy.quiet_hours_weekend) > 0 AND bridge.quiet_until(
            v_policy.quiet_hours, v_policy.quiet_hours_weekend, v_policy.timezone, v_now) IS NOT NULL) THEN
        v_held := bridge.hold_turn(t.id);
        IF v_held IS NOT NULL THEN
            IF v_raised <> '{}' AND v_held ->> 'cause' <> 'paused' THEN  -- a pause is silence (H2)
                PERFORM bridge.say_distress(t.id, t.match_id, t.bot_id, bridge.stamp(t.id));
            END IF;
            RETURN v_held || v_raised;
        END IF;
    END IF;
    IF bridge.answers(t.kind) AND t.state = 'composing' AND t.token IS NULL THEN
        -- Is there a newer message? One answer to all, before a call is wasted (E1). Only now, since what cannot be
        -- read or is too much ends alone.
        v_waiting := bridge.newer_turn(t.id);
        IF v_waiting IS NOT NULL THEN
            RETURN bridge.supersede(t.id, v_waiting) || v_raised;
        END IF;
    END IF;

    BEGIN
        UPDATE bridge.turns
        SET state = 'composing', token = p_token, covers = CASE WHEN token IS NULL THEN v_events ELSE covers END,
            pushes = 0, retry_at = NULL, held = NULL,
            follow_up_after = CASE WHEN bridge.answers(kind) THEN v_policy.follow_up_after END,
            claimed_at = bridge.now(), plain = p_plain, due_at = bridge.now() + make_interval(secs => p_lease)
        WHERE id = t.id;
    EXCEPTION WHEN unique_violation THEN
        RETURN '{"outcome": "busy"}' || v_raised;  -- the opener and the reply were claimed in the same instant (T1)
    END;
    IF v_policy.follow_up_after IS NOT NULL THEN  -- a match from before the installation has no row to lock (F3)
        PERFORM bridge.keep_match(t.match_id, t.bot_id)
        WHERE NOT EXISTS (SELECT FROM bridge.events e WHERE e.kind = 'match' AND e.match_id = t.match_id);
    END IF;
    IF v_policy.reply_parts > 1 AND bridge.answers(t.kind) THEN  -- an opener is one message
        v_task := v_task || (SELECT jsonb_build_object('most_parts', v_policy.reply_parts, 'part_pause', to_jsonb(p)) FROM (
            SELECT b.part_pause_min, b.part_pause_max FROM bridge.policy(t.bot_id) b) p);
    END IF;
    RETURN v_task || v_raised || jsonb_build_object('outcome', 'claimed', 'pace', jsonb_build_object(
        'thinking_delay_min', v_policy.thinking_delay_min, 'thinking_delay_max', v_policy.thinking_delay_max,
        'typing_speed_cps', v_policy.typing_speed_cps), 'bot_typing', v_policy.bot_typing,
        'persona', coalesce(v_policy.persona, bridge.persona(t.bot_id)), 'model', jsonb_build_object(
        'name', v_policy.openai_model, 'fallback', v_policy.openai_fallback_model, 'temperature', v_policy.openai_temperature,
        'max_tokens', v_policy.openai_max_tokens, 'history_tokens', v_policy.openai_history_tokens),
        'local_time', v_now AT TIME ZONE v_policy.timezone, 'utc_offset', extract(epoch FROM
        (v_now AT TIME ZONE v_policy.timezone) - (v_now AT TIME ZONE 'UTC')));
END
$$;
