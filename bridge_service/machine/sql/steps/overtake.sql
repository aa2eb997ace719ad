-- A reply under way makes way for the newer message as soon as that is grouped, and not only at its delivery: the older
-- turn is cancelled as `superseded`, its call or its draft is worth nothing from here on, and the waiting turn answers all.
--
-- Idempotent, and correct if it is never called: then the delivery's last look does the same, later (E1). What another
-- session locks is skipped, and told with `superseded` false, so that the caller comes again.
--
-- p_matches: these conversations; NULL: at most `p_limit` of all that have something to do
--
-- Conversations in the order of their ids, the active turn before the waiting one, and neither is ever waited for.
CREATE OR REPLACE FUNCTION bridge.overtake(p_matches uuid[] DEFAULT NULL, p_limit integer DEFAULT 500)
RETURNS TABLE (turn_id bigint, match_id uuid, superseded boolean, merges integer)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off AS $$
#variable_conflict use_column
DECLARE
    t         bridge.turns%ROWTYPE;
    v_matches uuid[] := ARRAY(SELECT DISTINCT m.id FROM unnest(p_matches) AS m (id) ORDER BY m.id);
    v_policy  jsonb;
    v_waiting bigint;
BEGIN
    PERFORM bridge.assert_read_committed();
    IF p_matches IS NULL THEN
        v_policy := bridge.policies(ARRAY(
            SELECT DISTINCT a.bot_id FROM bridge.turns a WHERE a.state IN ('composing', 'typing')));
        v_matches := ARRAY(
            SELECT a.match_id
            FROM (SELECT u.id, u.match_id, u.bot_id FROM bridge.turns u
                  WHERE u.state IN ('composing', 'typing') AND bridge.answers(u.kind) IS TRUE OFFSET 0) a
            CROSS JOIN LATERAL (  -- by the index of the only waiting turn, for each active one
                SELECT w.id FROM bridge.turns w
                WHERE w.match_id = a.match_id AND bridge.is_waiting(w.kind, w.state) OFFSET 0) w
            WHERE bridge.may_supersede(a.id, w.id, v_policy -> a.bot_id::text)
            UNION
            SELECT a.match_id  -- an edit or a deletion that no batch named (X1)
            FROM (SELECT u.id, u.match_id, u.bot_id, u.covers FROM bridge.turns u
                  WHERE u.state IN ('composing', 'typing') AND bridge.answers(u.kind) IS TRUE OFFSET 0) a
            WHERE (SELECT bool_or(e.id <> ALL (a.covers)) FROM bridge.events e
                   WHERE e.kind = 'change' AND e.match_id = a.match_id AND e.turn_id = a.id)
              AND bridge.may_supersede(a.id, NULL, (v_policy -> a.bot_id::text) || '{"second_message": "merge"}')
            ORDER BY 1 LIMIT p_limit);
    END IF;
    FOREACH match_id IN ARRAY v_matches LOOP
        turn_id := bridge.active_turn(match_id);
        CONTINUE WHEN turn_id IS NULL;
        superseded := false;
        merges := 0;
        SELECT a.* INTO t FROM bridge.turns a
        WHERE a.id = turn_id AND (a.state IN ('composing', 'typing')) IS TRUE FOR NO KEY UPDATE SKIP LOCKED;
        IF FOUND THEN
            CONTINUE WHEN NOT bridge.answers(t.kind);
            SELECT w.id INTO v_waiting FROM bridge.turns w
            WHERE w.match_id = t.match_id AND bridge.is_waiting(w.kind, w.state)
            FOR NO KEY UPDATE SKIP LOCKED;
            IF FOUND THEN
                v_policy := bridge.policies(ARRAY[t.bot_id]) -> t.bot_id::text;
                superseded := bridge.may_supersede(t.id, v_waiting, v_policy);
            END IF;
            IF superseded THEN
                merges := bridge.supersede(t.id, v_waiting, v_policy) -> 'merges';
            ELSE
                merges := bridge.recompose(t.id);
                CONTINUE WHEN merges = 0 OR (merges IS NULL AND v_waiting IS NOT NULL);
                superseded := merges IS NOT NULL;
                merges := coalesce(merges, 0);
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;
