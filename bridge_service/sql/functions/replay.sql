-- Captures what people wrote to bots and no event knows: from before the installation, or while the capture was off; and
-- gives back the events of that span that were set aside. In the order of the app's times, at most p_limit a call.
--
-- p_since, p_until: by the app's times; NULL: as far back as allowed, until now. p_match NULL: every conversation
-- p_dry: only counts, without a limit
--
-- Never what is older than half of the retention, for a message whose turn was pruned would be answered twice (A3); and
-- never what stands before a message of the bot's that is none of our own replies: somebody else, the program before
-- us, has answered it.
--
-- Returns {outcome: too_old, earliest: the first time allowed} or {outcome: replayed, found, old, captured, given_back}, where
-- `old` are those of `found` from before the installation: call again while `found` reaches the limit and something was
-- captured.
CREATE OR REPLACE FUNCTION bridge.replay(
    p_since timestamptz, p_until timestamptz, p_match uuid, p_retention_days double precision, p_limit integer,
    p_dry boolean)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET work_mem = '64MB' SET lock_timeout = '300ms' AS $$
DECLARE
    v_now      timestamptz := bridge.now();
    v_earliest timestamptz := v_now - make_interval(secs => p_retention_days * 86400 / 2);
    v_since    timestamptz := coalesce(p_since, v_earliest);
    v_until    timestamptz := least(p_until, v_now);
    v_installed timestamptz := (SELECT i.installed_at FROM bridge.installation i);
    m          record;
    v_found    bigint := 0;
    v_old      bigint := 0;
    v_captured bigint := 0;
    v_back     bigint;
BEGIN
    PERFORM bridge.assert_read_committed();
    IF v_since < v_earliest THEN
        RETURN jsonb_build_object('outcome', 'too_old', 'earliest', v_earliest);
    END IF;

    WITH aside AS (
        SELECT e.id FROM bridge.events e
        WHERE e.error IS NOT NULL AND e.turn_id IS NULL AND e.captured_at >= v_since AND e.captured_at < v_until
          AND (p_match IS NULL OR e.match_id = p_match)
        ORDER BY e.id FOR NO KEY UPDATE),
    given_back AS (
        UPDATE bridge.events e SET error = NULL FROM aside WHERE e.id = aside.id AND NOT p_dry)
    SELECT count(*) INTO v_back FROM aside;

    FOR m IN
        WITH unknown AS MATERIALIZED (
            SELECT w.* FROM bridge.messages_to_bots(v_since, v_until) w
            WHERE (p_match IS NULL OR w.match_id = p_match)
              AND NOT EXISTS (SELECT FROM bridge.events e WHERE e.kind = 'message' AND e.message_id = w.message_id)),
        spoken AS MATERIALIZED (
            SELECT u.match_id, h.message_id, h.created_at
            FROM (SELECT DISTINCT x.match_id, x.bot_id FROM unknown x) u
            CROSS JOIN LATERAL bridge.history(u.match_id, '{}', 1000) h
            WHERE h.sender_id = u.bot_id),
        answered AS (
            SELECT s.match_id, max(s.created_at) AS until
            FROM spoken s LEFT JOIN bridge.turns t ON t.reply_message_id = s.message_id AND t.state = 'answered'
            WHERE t.id IS NULL
            GROUP BY s.match_id)
        SELECT u.* FROM unknown u LEFT JOIN answered a ON a.match_id = u.match_id
        WHERE a.until IS NULL OR u.created_at > a.until
        ORDER BY u.created_at, u.message_id
        LIMIT CASE WHEN p_dry THEN NULL ELSE p_limit END
    LOOP
        v_found := v_found + 1;
        v_old := v_old + (m.created_at < v_installed)::integer;
        IF NOT p_dry AND bridge.capture_message(m.message_id, m.match_id, m.sender_id, m.created_at) IS NOT NULL THEN
            v_captured := v_captured + 1;
        END IF;
    END LOOP;
    RETURN jsonb_build_object(
        'outcome', 'replayed', 'found', v_found, 'old', v_old, 'captured', v_captured, 'given_back', v_back);
END
$$;
