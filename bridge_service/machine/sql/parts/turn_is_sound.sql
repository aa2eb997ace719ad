-- Whether a turn may be stored: the one CHECK of bridge.turns. PostgreSQL parses a CHECK anew in each write, and eleven of
-- them cost as much as the rest of the write; a function is parsed once a session. It raises, so that the error names the
-- broken rule.
--
-- It has no SET, which would double its cost, and needs none: its operators are those of pg_catalog unless a session puts
-- another schema before it. Another signature needs a migration, since the CHECK depends on this one.
CREATE OR REPLACE FUNCTION bridge.turn_is_sound(t bridge.turns) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_broken text;
BEGIN
    IF t.parts_out > 0 AND t.state NOT IN ('typing', 'answered') THEN
        v_broken := 'turns_parts_out';
    ELSIF t.parts IS NOT NULL AND t.kind <> 'reply' THEN
        v_broken := 'turns_parts';
    ELSIF t.kind NOT IN ('reply', 'initiation', 'follow_up') THEN
        v_broken := 'turns_kind';
    ELSIF (t.kind = 'follow_up') = (t.follows IS NULL) THEN
        v_broken := 'turns_follows';
    ELSIF t.action NOT IN ('say', 'silence', 'leave') THEN
        v_broken := 'turns_action';
    ELSIF t.state IN ('open', 'queued', 'composing', 'typing') THEN
        v_broken := CASE
            WHEN t.due_at IS NULL THEN 'turns_due_at'
            WHEN t.due_at < t.retry_at THEN 'turns_no_push_before_retry'
            WHEN t.ended_at IS NOT NULL THEN 'turns_ended_at'
            WHEN (t.draft IS NULL) = (t.state = 'typing') THEN 'turns_draft'
            WHEN t.state = 'typing' AND num_nulls(t.deliver_at, t.reply_message_id) > 0 THEN 'turns_typing' END;
    ELSE
        v_broken := CASE
            WHEN t.due_at IS NOT NULL THEN 'turns_due_at'
            WHEN t.ended_at IS NULL THEN 'turns_ended_at'
            WHEN t.draft IS NOT NULL THEN 'turns_draft'
            WHEN t.state = 'answered' AND t.answered_at IS NOT NULL
                 AND (t.reply_message_id IS NOT NULL OR t.reason = 'silence') THEN NULL
            WHEN t.state = 'cancelled' AND t.reason IS NOT NULL THEN NULL
            WHEN t.state = 'dead' AND t.last_error IS NOT NULL THEN NULL
            ELSE 'turns_state' END;
    END IF;
    IF v_broken IS NULL THEN
        RETURN true;
    END IF;
    RAISE EXCEPTION 'turn % breaks %', t.id, v_broken
        USING ERRCODE = 'check_violation', SCHEMA = 'bridge', TABLE = 'turns', CONSTRAINT = v_broken;
END
$$;
