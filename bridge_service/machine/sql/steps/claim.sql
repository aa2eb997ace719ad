-- queued --> composing, by one worker, fenced by its token. Also composing without a token: a turn whose worker died or
-- failed. Whatever else is asked for finds nothing to do, and so does a turn that failed and is asked for before its
-- `retry_at` (T5).
--
-- p_token: a fresh random uuid made by the worker; the same token asks again after an answer that got lost, and gets the
--   same answer (T6)
-- p_lease: seconds until the turn is taken away again, unless renewed
-- p_lines: how many earlier messages to return as history, 4,000 characters of each
-- p_max_merges: how often a chain of replies may be superseded; a turn that is claimed again makes way for the waiting turn
--   unless the chain is that long
-- p_max_attempts: a turn has so many; the last one is its own, so that the waiting turn does not die with it
-- The defaults are for a process of the release before.
--
-- Returns {outcome: claimed, ...the task} or {outcome: nothing | busy | superseded | cancelled | dead, ...}; of a claim
-- before `retry_at` also `early`. A turn is dead at once if its messages together hold more than 100 MB.
CREATE OR REPLACE FUNCTION bridge.claim(
    p_turn bigint, p_token uuid, p_lease double precision, p_lines integer, p_max_merges integer DEFAULT 3,
    p_max_attempts integer DEFAULT 5)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
DECLARE
    t          bridge.turns%ROWTYPE;
    c          record;
    v_active   bigint;
    v_waiting  bigint;
    v_ids      bigint[];
    v_messages uuid[];
    v_lines    jsonb;
    v_covered  jsonb;
    v_bytes    bigint;
    c_most_bytes CONSTANT bigint := 100000000;  -- of what is to be answered, 200 for each message's frame
    c_line       CONSTANT integer := 4000;      -- characters of a line of history
BEGIN
    PERFORM bridge.assert_read_committed();
    SET LOCAL synchronous_commit = off;  -- lost in a crash, it is done again; and its token fits no more (T6)
    -- The turn first; what it covers is read in later statements, or an event that joined while we waited for this lock
    -- would be neither in the draft nor in a newer turn (T3).
    SELECT * INTO t FROM bridge.turns WHERE id = p_turn FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'nothing', 'state', 'unknown');
    END IF;

    IF t.state = 'composing' AND t.token = p_token THEN
        v_ids := t.covers;
    ELSIF t.state = 'queued' OR (t.state = 'composing' AND t.token IS NULL) THEN
        IF t.retry_at > bridge.now() THEN
            RETURN jsonb_build_object('outcome', 'nothing', 'state', t.state, 'early', true);
        END IF;
        IF t.state = 'queued' THEN
            v_active := bridge.active_turn(t.match_id);
        END IF;
        IF v_active IS NOT NULL THEN
            -- Whatever ends that one wakes this one (T7). If it is held, it may be ending just now and have looked before
            -- this one's push was committed: then this one is due again by itself.
            PERFORM FROM bridge.turns a
            WHERE a.id = v_active AND (a.state IN ('composing', 'typing')) IS TRUE FOR SHARE SKIP LOCKED;
            IF NOT FOUND THEN
                UPDATE bridge.turns SET due_at = least(due_at, bridge.now() + interval '1 second') WHERE id = t.id;
                PERFORM bridge.notify('bridge_due');
            END IF;
            RETURN jsonb_build_object('outcome', 'busy');
        END IF;
        IF t.kind = 'reply' THEN
            PERFORM bridge.take_along(t.id, t.match_id);
        END IF;
        SELECT coalesce(array_agg(e.id ORDER BY e.id), '{}') INTO v_ids
        FROM bridge.events e WHERE e.turn_id = t.id;
    ELSE
        RETURN jsonb_build_object('outcome', 'nothing', 'state', t.state);
    END IF;

    SELECT * INTO c FROM bridge.conversation(t.match_id) WHERE bot_id = t.bot_id;
    IF NOT FOUND THEN
        RETURN bridge.cancel_turn(t.id, 'gone');
    END IF;

    SELECT coalesce(array_agg(e.message_id ORDER BY e.id), '{}') INTO v_messages
    FROM unnest(v_ids) AS i (id)
    CROSS JOIN LATERAL (
        SELECT v.id, v.kind, v.message_id FROM bridge.events v WHERE v.id = i.id OFFSET 0) e  -- as in history.sql
    WHERE e.kind = 'message';
    -- Times leave as text: the app may hold any (C3). The covered ones stand in the order of their capture, and whole; the
    -- others are there to be glanced at. Nothing is built of more than a call can carry: PostgreSQL would refuse it, or
    -- nobody wait for it, at every claim.
    SELECT coalesce(jsonb_agg(line ORDER BY position) FILTER (WHERE covered), '[]'),
           coalesce(jsonb_agg(line ORDER BY number) FILTER (WHERE NOT covered), '[]'),
           coalesce(max(bytes), 0)
    INTO v_covered, v_lines, v_bytes
    FROM (
        SELECT h.covered, h.number, h.position, h.bytes,
               CASE WHEN h.bytes <= c_most_bytes THEN jsonb_build_object(
                   'message_id', h.message_id, 'from_bot', h.sender_id = t.bot_id,
                   'content', coalesce(CASE WHEN h.covered THEN h.content ELSE left(h.content, c_line) END, ''),
                   'sent_at', h.created_at::text) END AS line
        FROM (SELECT h.*, o.position, coalesce(
                  sum(200 + coalesce(octet_length(h.content), 0)) FILTER (WHERE h.covered) OVER (), 0) AS bytes
              -- Asked for by id, a later turn's messages take no line of the history, and are left out.
              FROM bridge.history(t.match_id, v_messages || CASE WHEN t.kind = 'reply' AND p_lines > 0
                                      THEN bridge.later_messages(t.id, t.match_id) ELSE '{}' END, p_lines)
              WITH ORDINALITY AS h (message_id, sender_id, content, created_at, covered, number)
              LEFT JOIN unnest(v_messages) WITH ORDINALITY AS o (message_id, position) USING (message_id)
              WHERE NOT h.covered OR o.position IS NOT NULL) h) lines;

    v_lines := bridge.capture_order(t.match_id, v_lines);

    IF t.kind = 'reply' AND v_covered = '[]' THEN
        RETURN bridge.cancel_turn(t.id, 'gone');
    ELSIF t.kind = 'initiation' AND v_lines <> '[]' THEN
        RETURN bridge.cancel_turn(t.id, 'message');
    ELSIF v_bytes > c_most_bytes THEN
        PERFORM bridge.end_turn(t.id, 'dead', NULL, format(
            'TooMuchToAnswer: %s bytes in %s messages, more than the %s that a claim can carry',
            v_bytes, cardinality(v_messages), c_most_bytes));
        RETURN jsonb_build_object('outcome', 'dead', 'error', 'TooMuchToAnswer', 'match_id', t.match_id,
                                  'attempts', t.attempts, 'next_turn', bridge.next_turn(t.match_id));
    ELSIF t.kind = 'reply' AND t.state = 'composing' AND t.token IS NULL
          AND t.merges < p_max_merges AND t.attempts + 1 < p_max_attempts THEN
        -- A newer turn waits: one answer to all, before a call is wasted (E1). Only now, since what cannot be read or is
        -- too much ends alone. The active turn is locked before the waiting one.
        SELECT w.id INTO v_waiting FROM bridge.turns w
        WHERE w.match_id = t.match_id AND w.kind = 'reply' AND w.state IN ('open', 'queued')
        FOR NO KEY UPDATE;
        IF FOUND THEN
            RETURN bridge.supersede(t.id, v_waiting);
        END IF;
    END IF;

    BEGIN
        UPDATE bridge.turns
        SET state = 'composing', token = p_token, covers = v_ids, pushes = 0, retry_at = NULL, claimed_at = bridge.now(),
            due_at = bridge.now() + make_interval(secs => p_lease)
        WHERE id = t.id;
    EXCEPTION WHEN unique_violation THEN
        RETURN jsonb_build_object('outcome', 'busy');  -- the opener and the reply were claimed in the same instant (T1)
    END;
    RETURN jsonb_build_object(
        'outcome', 'claimed', 'kind', t.kind, 'match_id', t.match_id, 'bot_id', t.bot_id,
        'bot_name', c.bot_name, 'person_name', c.person_name, 'attempts', t.attempts, 'merges', t.merges,
        'refused', t.refused, 'messages', v_covered, 'history', v_lines);
END
$$;
