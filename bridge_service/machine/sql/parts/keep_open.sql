-- Keeps groups open that are due and not complete: a covered message has no text yet, or the person types. They are looked
-- at again 2 s later; at most until GROUPING_MAX after the first message, or GROUPING_DELAY if that is longer. `report`
-- judges the push by `planned_at`, which moves along.
--
-- p_limit: as many as the caller is about to push
--
-- What the app's tables refuse, and a lock on them that takes longer than 20 ms, keeps no group open (I-1).
CREATE OR REPLACE FUNCTION bridge.keep_open(p_limit integer) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '20ms'
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off AS $$
DECLARE
    v_now    timestamptz := bridge.now();
    v_due    bigint[];
    v_wait   bigint[];
    v_policy jsonb;
BEGIN
    v_due := ARRAY(
        SELECT d.id FROM (SELECT t.id, t.kind FROM bridge.turns t
                          WHERE t.state = 'open' AND t.due_at <= v_now ORDER BY t.due_at LIMIT p_limit) d
        WHERE bridge.answers(d.kind) IS TRUE);
    IF v_due = '{}' THEN
        RETURN;
    END IF;
    BEGIN
        v_wait := ARRAY(
            SELECT v.turn_id
            FROM unnest(bridge.textless(ARRAY(
                SELECT e.message_id FROM bridge.events e
                WHERE e.turn_id = ANY (v_due) AND (e.kind = 'message') IS TRUE))) AS m (id)
            CROSS JOIN LATERAL (SELECT e.turn_id FROM bridge.events e
                                WHERE e.kind = 'message' AND e.message_id = m.id OFFSET 0) v);
        IF bridge.has_typing() THEN
            v_wait := v_wait || ARRAY(
                SELECT t.id FROM bridge.turns t
                WHERE t.id = ANY (v_due) AND bridge.is_typing(t.match_id, bridge.person_of(t.id)));
        END IF;
    EXCEPTION WHEN OTHERS OR assert_failure THEN
        RETURN;
    END;
    IF v_wait = '{}' THEN
        RETURN;
    END IF;
    v_policy := bridge.policies(ARRAY(SELECT t.bot_id FROM bridge.turns t WHERE t.id = ANY (v_wait)));
    WITH mine AS (
        SELECT t.id, least(v_now + interval '2 seconds', l.until) AS due_at
        FROM bridge.turns t
        CROSS JOIN LATERAL (
            SELECT t.opened_at + make_interval(secs => greatest(p.grouping_delay, p.grouping_max)) AS until
            FROM jsonb_to_record(v_policy -> t.bot_id::text) AS p (
                grouping_delay double precision, grouping_max double precision) OFFSET 0) l
        WHERE t.id = ANY (v_wait) AND (t.state = 'open' AND t.due_at <= v_now) IS TRUE AND l.until > v_now
        ORDER BY t.match_id FOR NO KEY UPDATE OF t SKIP LOCKED)
    UPDATE bridge.turns t SET due_at = mine.due_at, planned_at = mine.due_at
    FROM mine WHERE t.id = mine.id;
END
$$;
