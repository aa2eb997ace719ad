-- composing --> typing: stores the draft of the worker that holds the token, and when it may be delivered. A reply
-- without a pause is delivered in the same call.
--
-- p_pause: seconds of thinking and typing still to come
-- p_max_merges: of a process of the version before, whose environment rules; NULL: the bot's policy
-- p_delay, p_max_attempts: unused, for the version before passes them
-- p_typing: the last seconds of the pause, in which the bot's indicator is shown; 0: it is not
-- p_action: what the draft does beside its text: say; silence, with a draft of ''; or leave, with or without a text
-- p_rest: the texts of the reply's other messages, if it has several (P1); NULL or {}: it has one. Not for an opener
-- p_pauses: seconds from each message to the next, one for each of `p_rest`
-- Called again with the same token after a lost answer, it returns where the turn stands now (D3).
-- Returns {outcome: typing | superseded | fenced} or what deliver_turn returns.
CREATE OR REPLACE FUNCTION bridge.finish(
    p_turn bigint, p_token uuid, p_draft text, p_pause double precision, p_max_merges integer DEFAULT NULL,
    p_delay double precision DEFAULT NULL, p_max_attempts integer DEFAULT NULL, p_action text DEFAULT 'say',
    p_typing double precision DEFAULT 0,
    p_rest text[] DEFAULT NULL, p_pauses double precision[] DEFAULT NULL)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    t         record;
    v_deliver timestamptz;
    v_typing  timestamptz;
    v_waiting bigint;
BEGIN
    SELECT id, kind, match_id, state, token, parts INTO t FROM bridge.turns WHERE id = p_turn FOR NO KEY UPDATE;
    IF NOT FOUND OR t.token IS DISTINCT FROM p_token THEN
        RETURN jsonb_build_object('outcome', 'fenced');
    ELSIF t.state = 'composing' THEN
        v_deliver := bridge.now() + make_interval(secs => p_pause);
        v_typing := CASE WHEN p_pause > 0 AND p_typing > 0 THEN v_deliver - make_interval(secs => least(p_typing, p_pause)) END;
        IF t.parts IS NOT NULL THEN  -- of a draft that was thrown away
            DELETE FROM bridge.parts WHERE turn_id = t.id;
        END IF;
        UPDATE bridge.turns
        SET state = 'typing', draft = p_draft, action = p_action, deliver_at = v_deliver, due_at = v_deliver, pushes = 0,
            reply_message_id = gen_random_uuid(), typing_at = v_typing,
            parts = 1 + nullif(cardinality(p_rest), 0)
        WHERE id = t.id;
        IF cardinality(p_rest) > 0 THEN
            PERFORM bridge.store_parts(t.id, v_deliver, p_draft, p_rest, p_pauses);
        END IF;
    ELSIF t.state NOT IN ('typing', 'answered') THEN
        RETURN jsonb_build_object('outcome', 'fenced');
    END IF;
    -- An opener's delivery takes its match's event before the turn (F1): never from here, where the turn is locked.
    IF t.state = 'answered' OR (p_pause <= 0 AND bridge.answers(t.kind)) THEN
        RETURN bridge.deliver_turn(p_turn, p_max_merges);
    END IF;
    IF p_pause > 0 THEN  -- else its worker delivers it at once
        IF bridge.answers(t.kind) THEN  -- an `overtake` that met this call's lock skipped it (E1)
            v_waiting := bridge.newer_turn(t.id, p_max_merges);
            IF v_waiting IS NOT NULL THEN
                RETURN bridge.supersede(t.id, v_waiting);
            END IF;
        END IF;
        PERFORM bridge.ring_due(t.id, v_deliver);
        IF v_typing IS NOT NULL THEN
            PERFORM bridge.begin_typing(t.id, v_typing);
        END IF;
    END IF;
    RETURN jsonb_build_object('outcome', 'typing', 'match_id', t.match_id, 'kind', t.kind);
END
$$;
