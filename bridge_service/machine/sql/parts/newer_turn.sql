-- The waiting turn that the reply `p_turn` has to make way for, or NULL. Events that no scheduler has grouped yet count
-- (D1): for them the waiting turn is made here, by the same upsert as in group_events; they themselves stay ungrouped,
-- because a scheduler may hold them and wait for this step.
--
-- p_max_merges: of a process of the version before, whose environment rules; NULL: the bot's policy, which is read only
--   if there is a newer message
-- Internal: the caller holds the lock of the turn `p_turn`.
CREATE OR REPLACE FUNCTION bridge.newer_turn(p_turn bigint, p_max_merges integer DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_match   uuid;
    v_bot     uuid;
    v_first   timestamptz;
    v_waiting bigint;
    v_policy  jsonb;
BEGIN
    SELECT t.match_id, t.bot_id INTO v_match, v_bot FROM bridge.turns t WHERE t.id = p_turn;
    SELECT min(e.captured_at) INTO v_first FROM bridge.ungrouped_events(v_match) e WHERE e.kind = 'message';
    SELECT w.id INTO v_waiting FROM bridge.turns w
    WHERE w.match_id = v_match AND bridge.is_waiting(w.kind, w.state) AND w.id <> p_turn;
    IF v_first IS NULL AND v_waiting IS NULL THEN
        RETURN NULL;
    END IF;
    v_policy := (bridge.policies(ARRAY[v_bot]) -> v_bot::text)
        || jsonb_strip_nulls(jsonb_build_object('max_merges', p_max_merges));
    IF NOT bridge.may_supersede(p_turn, v_waiting, v_policy) THEN
        RETURN NULL;
    END IF;
    RETURN bridge.open_waiting(v_match, v_bot, v_first, (v_policy ->> 'grouping_delay')::double precision);
END
$$;
