-- Deletes finished turns and their events once they are older than the retention. Never what is unfinished or dead, and
-- never an opener or its match's event: a forgotten draw would be drawn again (A3). They stay, one small row a match.
-- Incidents and processes of that age go too.
-- Returns how many turns went; call again until it returns less than `p_limit`.
CREATE OR REPLACE FUNCTION bridge.prune(p_retention_days double precision, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    v_turns  bigint[];
    v_before timestamptz := bridge.now() - make_interval(secs => p_retention_days * 86400);
BEGIN
    SELECT array_agg(old.id) INTO v_turns
    FROM (SELECT t.id FROM bridge.turns t
          WHERE t.ended_at < v_before
            AND t.kind = 'reply' AND t.state IN ('answered', 'cancelled')
          ORDER BY t.ended_at LIMIT p_limit
          FOR UPDATE SKIP LOCKED) old;
    DELETE FROM bridge.events WHERE turn_id = ANY (v_turns);
    DELETE FROM bridge.turns WHERE id = ANY (v_turns);
    DELETE FROM bridge.incidents WHERE happened_at < v_before;
    DELETE FROM bridge.processes WHERE seen_at < v_before;
    RETURN coalesce(cardinality(v_turns), 0);
END
$$;
