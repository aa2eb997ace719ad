-- Deletes all that the bridge knows of matches that are gone from the app: `validate` cleans up after itself. If a
-- match's conversation or messages are still there, nothing of it is deleted: a forgotten opener would be said again
-- (A3).
-- Returns how many events and turns went.
CREATE OR REPLACE FUNCTION bridge.forget_matches(p_matches uuid[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    v_gone   uuid[];
    v_events integer;
    v_turns  integer;
BEGIN
    SELECT array_agg(m.id) INTO v_gone
    FROM unnest(p_matches) AS m (id)
    WHERE NOT EXISTS (SELECT FROM bridge.conversation(m.id)) AND NOT EXISTS (SELECT FROM bridge.history(m.id, '{}', 1));
    DELETE FROM bridge.events WHERE match_id = ANY (v_gone);
    GET DIAGNOSTICS v_events = ROW_COUNT;
    DELETE FROM bridge.parts WHERE turn_id IN (SELECT t.id FROM bridge.turns t WHERE t.match_id = ANY (v_gone));
    DELETE FROM bridge.turns WHERE match_id = ANY (v_gone);
    GET DIAGNOSTICS v_turns = ROW_COUNT;
    DELETE FROM bridge.indicators WHERE match_id = ANY (v_gone);
    DELETE FROM bridge.pauses WHERE match_id = ANY (v_gone);
    DELETE FROM bridge.forgotten WHERE match_id = ANY (v_gone);
    DELETE FROM bridge.disclosures WHERE match_id = ANY (v_gone);
    DELETE FROM bridge.distress WHERE match_id = ANY (v_gone);
    RETURN v_events + v_turns;
END
$$;
