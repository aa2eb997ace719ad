-- A message that an active reply covers was edited or deleted: the draft is thrown away, or the call under way loses its
-- token, and the turn is due at once. Its next claim reads the messages as they are then (X1). It stays active, because
-- in `queued` it could collide with the waiting turn (T6).
--
-- It counts as superseding does (E3): drafts in `merges`, calls in `overtakes`, each up to MAX_MERGES, so a person who
-- edits in a loop is answered. A turn without a token needs nothing. A reply of which a part is out is left alone.
-- SECOND_MESSAGE does not matter, because an edit is no second message.
--
-- p_max_merges: of a process of the version before; NULL: the bot's policy
-- Internal: the caller holds the turn's lock.
--
-- Returns NULL if no message was changed; 0 if the reply is left alone; else how many drafts and calls were thrown away.
CREATE OR REPLACE FUNCTION bridge.recompose(p_turn bigint, p_max_merges integer DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    t        bridge.turns%ROWTYPE;
    v_policy jsonb;
BEGIN
    SELECT * INTO t FROM bridge.turns WHERE id = p_turn;
    IF NOT bridge.is_changed(t.id, t.match_id, t.covers) THEN
        RETURN NULL;
    ELSIF t.state = 'composing' AND t.token IS NULL
       OR EXISTS (SELECT FROM bridge.parts p WHERE p.turn_id = t.id AND p.delivered_at IS NOT NULL) THEN
        RETURN 0;
    END IF;
    v_policy := (bridge.policies(ARRAY[t.bot_id]) -> t.bot_id::text)
        || jsonb_strip_nulls(jsonb_build_object('max_merges', p_max_merges, 'second_message', 'merge'));
    IF NOT bridge.may_supersede(t.id, NULL, v_policy) THEN
        RETURN 0;
    END IF;
    UPDATE bridge.turns
    SET merges = t.merges + (t.state = 'typing')::integer, overtakes = t.overtakes + (t.state = 'composing')::integer,
        state = 'composing', token = NULL, draft = NULL, pushes = 0, due_at = greatest(bridge.now(), retry_at)
    WHERE id = t.id
    RETURNING * INTO t;
    PERFORM bridge.notify('bridge_due');
    RETURN t.merges + t.overtakes;
END
$$;
