-- Lets the turn that is being claimed take the conversation's ungrouped events along, unless a newer turn waits for them:
-- without this a later message could be answered before an earlier one (T4). Never waits for a scheduler that is grouping
-- them just now, which may wait for the claimed turn; if it holds one of them, all are left to it, for the same reason.
-- (IS TRUE as in group_events.)
-- Internal: the caller holds the turn's lock.
CREATE OR REPLACE FUNCTION bridge.take_along(p_turn bigint, p_match uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    v_seen   bigint[];
    v_locked bigint[];
BEGIN
    SELECT array_agg(e.id) INTO v_seen
    FROM bridge.events e
    WHERE e.match_id = p_match AND (e.kind = 'message') IS TRUE AND e.turn_id IS NULL AND e.error IS NULL
      AND NOT EXISTS (
          SELECT FROM bridge.turns w
          WHERE w.match_id = p_match AND w.kind = 'reply' AND w.state IN ('open', 'queued') AND w.id <> p_turn);
    IF v_seen IS NULL THEN
        RETURN;
    END IF;
    SELECT array_agg(l.id) INTO v_locked
    FROM (SELECT e.id FROM bridge.events e
          WHERE (e.id IN (SELECT unnest(v_seen))) IS TRUE  -- hashed, and never a join
            AND e.match_id = p_match AND e.turn_id IS NULL AND e.error IS NULL
          ORDER BY e.id FOR NO KEY UPDATE SKIP LOCKED) l;
    IF cardinality(v_locked) = cardinality(v_seen) THEN
        UPDATE bridge.events e SET turn_id = p_turn, grouped_at = bridge.now()
        WHERE (e.id IN (SELECT unnest(v_locked))) IS TRUE
          AND e.match_id = p_match AND e.turn_id IS NULL AND e.error IS NULL;
    END IF;
END
$$;
