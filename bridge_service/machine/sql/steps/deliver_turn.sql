-- typing --> answered: the reply's INSERT and the turn's end are one transaction, so no crash separates them and no
-- repetition doubles them. A COMMIT in doubt is settled by calling again: the call waits for the row's lock and tells what
-- happened (D3).
--
-- p_max_merges: of a process of the version before, whose environment rules; NULL: the bot's policy
-- p_delay, p_max_attempts: unused, for the version before passes them
-- p_patience: the lock timeout of deliver_due; NULL: 300 ms
--
-- A draft of '' is a chosen silence: the turn is answered with that reason, after the same last look, and nothing is inserted.
-- With the action `leave` the mark that the bot left is set in this transaction, never before the reply and never without it.
--
-- A reply that the table refuses because of what it says is composed again, and the responder is told why. After any other
-- error the same draft is inserted again. Either is an attempt, unless the machine or a missing right is to blame. If the
-- table refuses the disclosure that comes before the reply, neither is said (L1), and the error names the disclosure.
--
-- A reply of several messages is delivered one a call, and the turn ends with the last one. Each call looks: a newer message
-- withholds the rest (P2). The app's `deliver` gets the turn with the first message only: an app that keeps it as its own key
-- would take the second one for a repetition.
--
-- Returns {outcome: answered | part | interrupted | superseded | cancelled | held | later | failed | dead | nothing, ...}. After
-- `part` more messages are to come; `interrupted` is in interruption.sql. `later` is no attempt: a lock
-- timed out; or with `error`, an SQLSTATE, the app's tables take no reply until the operator mends them. `named` tells the
-- SQLSTATE, constraint, column and table of an error, and never a value.
CREATE OR REPLACE FUNCTION bridge.deliver_turn(
    p_turn bigint, p_max_merges integer DEFAULT NULL, p_delay double precision DEFAULT NULL, p_max_attempts integer DEFAULT NULL,
    p_patience text DEFAULT NULL)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    t           bridge.turns%ROWTYPE;
    v_kind      text;
    v_match     uuid;
    v_waiting   bigint;
    v_thrown    integer;
    v_messages  uuid[];
    v_events    bigint[];
    v_reply     uuid;
    v_at        timestamptz;
    v_discloses boolean := false;  -- what the table refuses is the disclosure
    v_part      uuid;
    v_silent    jsonb;
    v_error     record;
    v_state     text;
    v_message   text;
    v_context   text;
    v_schema    text;
    v_table     text;
    v_column    text;
    v_constraint text;
    v_type      text;
    v_held      jsonb;
BEGIN
    PERFORM bridge.assert_read_committed();
    PERFORM set_config('lock_timeout', p_patience, true) WHERE p_patience IS NOT NULL;
    SELECT kind, match_id INTO v_kind, v_match FROM bridge.turns WHERE id = p_turn;
    IF bridge.speaks_first(v_kind) THEN
        -- F1: every uncommitted message of this match holds this row FOR KEY SHARE. Under this lock each message has
        -- committed, and the look below finds it, or waits until the opener is in the table. The row is never changed, or a
        -- REPEATABLE READ app would fail with 40001.
        BEGIN
            PERFORM FROM bridge.events WHERE kind = 'match' AND match_id = v_match FOR UPDATE;
        EXCEPTION WHEN lock_not_available THEN
            UPDATE bridge.turns SET due_at = greatest(deliver_at, retry_at, bridge.now() + interval '1 second')
            WHERE id = p_turn AND state = 'typing'
            RETURNING due_at INTO t.due_at;
            PERFORM bridge.ring_due(p_turn, t.due_at);
            RETURN jsonb_build_object('outcome', 'later');
        END;
    END IF;

    SELECT * INTO t FROM bridge.turns WHERE id = p_turn FOR NO KEY UPDATE;
    t.deliver_at := greatest(t.deliver_at, t.part_at);  -- of the message to come (P1)
    IF NOT FOUND OR t.state <> 'typing' OR t.deliver_at > bridge.now() OR t.retry_at > bridge.now() THEN
        RETURN jsonb_build_object(
            'outcome', CASE WHEN t.state = 'answered' THEN 'answered' ELSE 'nothing' END, 'state', t.state, 'again', true,
            'kind', t.kind, 'match_id', t.match_id, 'message_id', t.reply_message_id,
            'next_turn', CASE WHEN t.state = 'answered' THEN bridge.next_turn(t.match_id) END);
    END IF;

    -- The last look. Each of these is a new statement with a new snapshot.
    IF bridge.answers(t.kind) THEN
        SELECT coalesce(array_agg(e.id ORDER BY e.kind = 'message', e.id), '{}'),
               array_agg(e.message_id ORDER BY e.id) FILTER (WHERE e.kind = 'message')
        INTO v_events, v_messages
        FROM bridge.events e WHERE e.turn_id = t.id AND (e.kind = 'message' OR e.id = ANY (t.covers)) IS TRUE;
        IF t.parts_out > 0 THEN
            v_events := t.covers;  -- it is not composed again (P0)
        END IF;
        IF v_events <> t.covers THEN
            -- The draft answers something else than the turn holds: it is thrown away and composed anew (T3).
            UPDATE bridge.turns
            SET state = 'composing', token = NULL, draft = NULL, due_at = bridge.now(), pushes = 0
            WHERE id = t.id;
            RETURN jsonb_build_object('outcome', 'nothing', 'state', 'composing');
        END IF;
    END IF;
    v_silent := bridge.silenced(t.id, t.kind, t.match_id, t.bot_id);
    IF v_silent IS NOT NULL THEN
        RETURN v_silent;
    ELSIF bridge.is_gone(t.match_id, t.bot_id, v_messages) THEN
        RETURN bridge.cancel_turn(t.id, 'gone');
    ELSIF t.follows IS NOT NULL THEN
        IF bridge.went_on(t.follows) THEN
            RETURN bridge.cancel_turn(t.id, 'message');
        END IF;
    ELSIF bridge.speaks_first(t.kind) THEN
        PERFORM FROM bridge.history(t.match_id, '{}', 1);
        IF FOUND THEN
            RETURN bridge.cancel_turn(t.id, 'message');
        END IF;
    ELSE
        v_waiting := bridge.newer_turn(t.id, p_max_merges);
        IF v_waiting IS NOT NULL THEN
            RETURN bridge.supersede(t.id, v_waiting);
        ELSIF bridge.is_changed(t.id, t.match_id, t.covers) THEN
            v_thrown := bridge.recompose(t.id, p_max_merges);
            IF v_thrown > 0 THEN
                RETURN jsonb_build_object('outcome', 'superseded', 'kind', t.kind, 'match_id', t.match_id, 'merges', v_thrown);
            END IF;
        END IF;
    END IF;
    IF t.parts_out = 0 AND bridge.has_hours() AND (
        SELECT bridge.quiet_until(p.quiet_hours, p.quiet_hours_weekend, p.timezone, bridge.now())
        FROM bridge.policy(t.bot_id) p) IS NOT NULL THEN
        v_held := bridge.hold_turn(t.id, 'hours');  -- only hours: what a limit counted is paid, and is said
        IF v_held IS NOT NULL THEN
            RETURN v_held;
        END IF;
    END IF;

    BEGIN
        -- Answered before the insert: the reply's own triggers look at the turn (D4).
        IF t.parts IS NOT NULL THEN
            v_part := bridge.part_out(t.id);
        END IF;
        IF (t.parts_out + 1 < t.parts) IS NOT TRUE THEN  -- its only message, or its last one
            PERFORM bridge.end_turn(t.id, 'answered', CASE WHEN t.draft = '' THEN 'silence' END);
            IF t.action = 'leave' THEN
                PERFORM bridge.leave(t.id, t.match_id);
            END IF;
        END IF;
        IF t.distress IS NOT NULL AND t.parts_out = 0 THEN
            v_at := bridge.say_distress(t.id, t.match_id, t.bot_id, bridge.stamp(t.id));
        END IF;
        IF t.draft <> '' THEN
            v_at := coalesce(v_at, bridge.stamp(coalesce(t.follows, t.id)))
                + make_interval(secs => 0.001 * t.parts_out);  -- after the message before it
            -- Its index is empty unless a bot has a disclosure; the policy would cost five times as much.
            IF EXISTS (SELECT FROM bridge.bots b WHERE b.disclosure <> 'none') THEN
                v_discloses := true;
                v_at := bridge.disclose(coalesce(t.follows, t.id), t.match_id, t.bot_id, v_at);
                v_discloses := false;
            END IF;
            v_reply := bridge.say(CASE WHEN t.parts_out = 0 THEN t.id END, coalesce(v_part, t.reply_message_id), t.match_id,
                                  t.bot_id, t.draft, v_at);
            IF v_reply IS NULL THEN
                RAISE EXCEPTION USING ERRCODE = 'BR001';
            ELSIF t.parts_out = 0 AND v_reply <> t.reply_message_id THEN
                UPDATE bridge.turns SET reply_message_id = v_reply WHERE id = t.id;
            END IF;
            IF v_reply <> v_part THEN
                UPDATE bridge.parts SET message_id = v_reply WHERE turn_id = t.id AND number = t.parts_out + 1;
            END IF;
        END IF;
        IF t.parts_out + 1 < t.parts THEN
            PERFORM bridge.plan_part(t.id);
            RETURN jsonb_build_object('outcome', 'part', 'kind', t.kind, 'match_id', t.match_id, 'message_id', v_reply,
                                      'part', t.parts_out + 1);
        END IF;
    EXCEPTION
        WHEN SQLSTATE 'BR001' THEN
            RETURN bridge.cancel_turn(t.id, 'refused');
        WHEN lock_not_available OR deadlock_detected THEN
            UPDATE bridge.turns SET due_at = bridge.now() + interval '1 second' WHERE id = t.id
            RETURNING due_at INTO t.due_at;
            PERFORM bridge.ring_due(t.id, t.due_at);
            RETURN jsonb_build_object('outcome', 'later');
        WHEN OTHERS OR assert_failure THEN  -- which OTHERS leaves out
            GET STACKED DIAGNOSTICS
                v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT, v_context = PG_EXCEPTION_CONTEXT,
                v_schema = SCHEMA_NAME, v_table = TABLE_NAME, v_column = COLUMN_NAME, v_constraint = CONSTRAINT_NAME,
                v_type = PG_DATATYPE_NAME;
            -- A foreign key error means that the match is gone, or that the bot lacks a row which the operator can insert.
            -- Only a new look tells which.
            IF v_state = '23503' AND bridge.is_gone(t.match_id, t.bot_id, v_messages) THEN
                RETURN bridge.cancel_turn(t.id, 'gone');
            END IF;
            v_error := bridge.diagnose(
                v_state, v_message, v_context, v_schema, v_table, v_column, v_constraint, v_type);
            IF v_discloses THEN  -- no other reply would mend it
                v_error.refused := NULL;
                v_error.named := v_error.named || ' at the disclosure';
                v_error.words := 'the disclosure was refused: ' || v_error.words;
            END IF;
            -- A full disk, a lost right, a standby, a table, function or partition that is not there: no turn is to blame,
            -- and none dies of an hour of it (I6, as A1).
            IF v_error.blame IN ('busy', 'unavailable', 'schema', 'absent', 'rights') THEN
                UPDATE bridge.turns SET last_error = v_error.named, pushes = 0, due_at = bridge.now() + interval '5 seconds'
                WHERE id = t.id
                RETURNING due_at INTO t.due_at;
                PERFORM bridge.ring_due(t.id, t.due_at);
                RETURN jsonb_build_object('outcome', 'later', 'error', v_state, 'named', v_error.named);
            END IF;
            IF v_error.refused IS NOT NULL AND t.parts_out = 0 THEN
                -- It stays active: back in `queued` it would collide with the waiting turn (T6).
                UPDATE bridge.turns SET state = 'composing', token = NULL, draft = NULL, refused = v_error.refused
                WHERE id = t.id;
            END IF;
            RETURN bridge.count_failure(t.id, v_error.words, 2 ^ t.attempts)
                || jsonb_build_object('error', 'delivery', 'named', v_error.named);
    END;
    RETURN jsonb_build_object(
        'outcome', 'answered', 'kind', t.kind, 'match_id', t.match_id,
        'message_id', CASE WHEN t.parts_out > 0 THEN t.reply_message_id ELSE v_reply END, 'action', t.action,
        'characters', length(t.draft), 'covered', cardinality(v_messages),
        'late', extract(epoch FROM bridge.now() - t.deliver_at)::double precision, 'next_turn', bridge.next_turn(t.match_id));
END
$$;
