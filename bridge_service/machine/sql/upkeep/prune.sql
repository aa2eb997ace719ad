-- Deletes finished turns and their events once they are older than the retention by both clocks, the bridge's and the
-- app's: a message dated into the future is remembered until then, or `verify` would miss it on that day. Never what is
-- unfinished or dead, and never an opener, a follow-up or the match's event: a forgotten draw would be drawn again (A3). They stay, one
-- small row a match, and so does the time up to which a conversation is forgotten.
-- Incidents, processes, minutes, actions, calls, budgets, notices and marks of distress of that age go too. A disclosure
-- never goes, or it would be said again (L1).
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
            AND bridge.answers(t.kind) AND t.state IN ('answered', 'cancelled')
            AND t.follow_up_at IS NULL  -- a follow-up is to come (F3)
            -- A scalar, which PostgreSQL asks for each turn: it would hash all events for a NOT EXISTS.
            AND (SELECT bool_or(e.created_at >= v_before AND e.created_at < 'infinity')
                 FROM bridge.events e WHERE e.turn_id = t.id) IS NOT TRUE
          ORDER BY t.ended_at LIMIT p_limit
          FOR UPDATE SKIP LOCKED) old;
    INSERT INTO bridge.forgotten AS known (match_id, until)
    SELECT e.match_id, max(e.created_at) FROM bridge.events e
    WHERE e.turn_id = ANY (v_turns) AND isfinite(e.created_at)
    GROUP BY e.match_id ORDER BY e.match_id
    ON CONFLICT (match_id) DO UPDATE SET until = EXCLUDED.until WHERE known.until < EXCLUDED.until;
    DELETE FROM bridge.events WHERE turn_id = ANY (v_turns);
    DELETE FROM bridge.parts WHERE turn_id = ANY (v_turns);
    DELETE FROM bridge.turns WHERE id = ANY (v_turns);
    DELETE FROM bridge.calls WHERE begun_at < v_before;
    DELETE FROM bridge.budgets WHERE day < v_before::date;
    DELETE FROM bridge.notices WHERE said_at < v_before;
    DELETE FROM bridge.distress WHERE last_at < v_before;
    DELETE FROM bridge.pauses WHERE until < v_before;
    DELETE FROM bridge.incidents WHERE happened_at < v_before;
    DELETE FROM bridge.processes WHERE seen_at < v_before;
    DELETE FROM bridge.minutes WHERE minute < v_before;
    DELETE FROM bridge.actions WHERE at < v_before;
    RETURN coalesce(cardinality(v_turns), 0);
END
$$;
