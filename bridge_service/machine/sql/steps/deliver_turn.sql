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
-- error the same draft is inserted again. Either is an attempt, unless the machine or a missing right is to blame.
--
-- Returns {outcome: answered | superseded | cancelled | held | later | failed | dead | nothing, ...}. `later` is no attempt: a lock
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
    v_messages  uuid[];
    v_events    bigint[];
    v_reply     uuid;
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
    IF NOT FOUND OR t.state <> 'typing' OR t.deliver_at > bridge.now() OR t.retry_at > bridge.now() THEN
        RETURN jsonb_build_object(
            'outcome', CASE WHEN t.state = 'answered' THEN 'answered' ELSE 'nothing' END, 'state', t.state, 'again', true,
            'kind', t.kind, 'match_id', t.match_id, 'message_id', t.reply_message_id,
            'next_turn', CASE WHEN t.state = 'answered' THEN bridge.next_turn(t.match_id) END);
    END IF;

    -- The last look. Each of these is a new statement with a new snapshot.
    IF bridge.answers(t.kind) THEN
        SELECT coalesce(array_agg(e.id ORDER BY e.id), '{}'), array_agg(e.message_id ORDER BY e.id)
        INTO v_events, v_messages
        FROM bridge.events e WHERE e.turn_id = t.id;
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
    ELSIF bridge.speaks_first(t.kind) THEN
        PERFORM FROM bridge.history(t.match_id, '{}', 1);
        IF FOUND THEN
            RETURN bridge.cancel_turn(t.id, 'message');
        END IF;
    ELSE
        v_waiting := bridge.newer_turn(t.id, p_max_merges);
        IF v_waiting IS NOT NULL THEN
            RETURN bridge.supersede(t.id, v_waiting);
        END IF;
    END IF;

    BEGIN
        -- Answered before the insert: the reply's own triggers look at the turn (D4).
        PERFORM bridge.end_turn(t.id, 'answered', CASE WHEN t.draft = '' THEN 'silence' END);
        IF t.action = 'leave' THEN
            PERFORM bridge.leave(t.id, t.match_id);
        END IF;
        IF t.draft <> '' THEN
            v_reply := bridge.say(t.id, t.reply_message_id, t.match_id, t.bot_id, t.draft, bridge.stamp(t.id));
            IF v_reply IS NULL THEN
                RAISE EXCEPTION USING ERRCODE = 'BR001';
            ELSIF v_reply <> t.reply_message_id THEN
                UPDATE bridge.turns SET reply_message_id = v_reply WHERE id = t.id;
            END IF;
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
            -- A full disk, a lost right, a standby, a table, function or partition that is not there: no turn is to blame,
            -- and none dies of an hour of it (I6, as A1).
            IF v_error.blame IN ('busy', 'unavailable', 'schema', 'absent', 'rights') THEN
                UPDATE bridge.turns SET last_error = v_error.named, pushes = 0, due_at = bridge.now() + interval '5 seconds'
                WHERE id = t.id
                RETURNING due_at INTO t.due_at;
                PERFORM bridge.ring_due(t.id, t.due_at);
                RETURN jsonb_build_object('outcome', 'later', 'error', v_state, 'named', v_error.named);
            END IF;
            IF v_error.refused IS NOT NULL THEN
                -- It stays active: back in `queued` it would collide with the waiting turn (T6).
                UPDATE bridge.turns SET state = 'composing', token = NULL, draft = NULL, refused = v_error.refused
                WHERE id = t.id;
            END IF;
            RETURN bridge.count_failure(t.id, v_error.words, 2 ^ t.attempts)
                || jsonb_build_object('error', 'delivery', 'named', v_error.named);
    END;
    RETURN jsonb_build_object(
        'outcome', 'answered', 'kind', t.kind, 'match_id', t.match_id, 'message_id', v_reply, 'action', t.action,
        'characters', length(t.draft), 'covered', cardinality(v_messages),
        'late', extract(epoch FROM bridge.now() - t.deliver_at)::double precision, 'next_turn', bridge.next_turn(t.match_id));
END
$$;
