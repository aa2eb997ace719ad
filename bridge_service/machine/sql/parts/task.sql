-- What a responder is told of a turn: who talks, the messages to answer (whole, in the order of their capture), and what was
-- said before. Changes nothing.
--
-- p_messages: those that the turn covers, in the order of their capture
-- p_lines: how many earlier messages to return as history, 4,000 characters of each
--
-- Returns the task; or {reason: gone | left | message} if there is nothing to say; or {error: TooMuchToAnswer: ...} if the messages
-- together hold more than 100 MB, which PostgreSQL would refuse to build, or no call carry in time, at every claim.
--
-- STABLE: the names, the messages and the history are those of one moment.
CREATE OR REPLACE FUNCTION bridge.task(t bridge.turns, p_messages uuid[], p_lines integer) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_sides      record;
    v_covered    jsonb;
    v_history    jsonb;
    v_bytes      bigint;
    c_most_bytes CONSTANT bigint := 100000000;  -- of what is to be answered, 200 for each message's frame
    c_line       CONSTANT integer := 4000;      -- characters of a line of history
BEGIN
    SELECT * INTO v_sides FROM bridge.conversation(t.match_id)
    WHERE bot_id = t.bot_id AND bridge.ended(t.match_id) IS NOT TRUE;
    IF NOT FOUND THEN
        RETURN '{"reason": "gone"}';
    END IF;
    IF bridge.is_left(t.match_id) THEN
        RETURN '{"reason": "left"}';
    END IF;

    -- Times leave as text: the app may hold any (C3).
    SELECT coalesce(jsonb_agg(line ORDER BY position) FILTER (WHERE covered), '[]'),
           coalesce(jsonb_agg(line ORDER BY number) FILTER (WHERE NOT covered), '[]'),
           coalesce(max(bytes), 0)
    INTO v_covered, v_history, v_bytes
    FROM (
        SELECT h.covered, h.number, h.position, h.bytes,
               CASE WHEN h.bytes <= c_most_bytes THEN jsonb_build_object(
                   'message_id', h.message_id, 'from_bot', h.sender_id = t.bot_id,
                   'content', coalesce(CASE WHEN h.covered THEN h.content ELSE left(h.content, c_line) END, ''),
                   'sent_at', h.created_at::text) END AS line
        FROM (SELECT h.*, o.position, coalesce(
                  sum(200 + coalesce(octet_length(h.content), 0)) FILTER (WHERE h.covered) OVER (), 0) AS bytes
              -- Asked for by id, a later turn's messages take no line of the history, and are left out.
              FROM bridge.history(t.match_id, p_messages || CASE WHEN bridge.answers(t.kind) AND p_lines > 0
                                      THEN bridge.later_messages(t.id, t.match_id) ELSE '{}' END, p_lines)
              WITH ORDINALITY AS h (message_id, sender_id, content, created_at, covered, number)
              LEFT JOIN unnest(p_messages) WITH ORDINALITY AS o (message_id, position) USING (message_id)
              WHERE (NOT h.covered OR o.position IS NOT NULL)
                -- An opener is not said where a message is, not even where it is withdrawn (I4).
                AND (bridge.speaks_first(t.kind) AND t.follows IS NULL OR bridge.withdrawn(h.message_id) IS NOT TRUE)) h) lines;

    IF t.follows IS NOT NULL THEN
        IF bridge.went_on(t.follows) THEN
            RETURN '{"reason": "message"}';
        END IF;
    ELSIF bridge.answers(t.kind) AND v_covered = '[]' THEN
        RETURN '{"reason": "gone"}';
    ELSIF bridge.speaks_first(t.kind) AND v_history <> '[]' THEN
        RETURN '{"reason": "message"}';
    ELSIF v_bytes > c_most_bytes THEN
        RETURN jsonb_build_object('error', format(
            'TooMuchToAnswer: %s bytes in %s messages, more than the %s that a claim can carry',
            v_bytes, cardinality(p_messages), c_most_bytes));
    END IF;
    RETURN jsonb_build_object(
        'kind', t.kind, 'match_id', t.match_id, 'bot_id', t.bot_id,
        'bot_name', v_sides.bot_name, 'person_name', v_sides.person_name, 'attempts', t.attempts, 'merges', t.merges + t.overtakes,
        'bot_profile', bridge.profile(v_sides.bot_id), 'person_profile', bridge.profile(v_sides.person_id),
        'matched_at', v_sides.matched_at::text,
        'refused', t.refused, 'said', t.said, 'withheld', t.withheld, 'messages', v_covered,
        'history', bridge.capture_order(t.match_id, v_history));
END
$$;
