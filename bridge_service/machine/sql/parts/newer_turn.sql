-- The waiting turn that a reply about to be delivered has to make way for, or NULL. Events that nobody has grouped yet
-- count (D1): for them the waiting turn is made here, by the same upsert as in group_events; they themselves stay
-- ungrouped, because a scheduler may hold them and wait for us.
-- Internal: the caller holds the lock of the turn `p_turn`.
CREATE OR REPLACE FUNCTION bridge.newer_turn(p_turn bigint, p_match uuid, p_bot uuid, p_may_merge boolean) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    v_first   timestamptz;
    v_waiting bigint;
BEGIN
    IF NOT p_may_merge THEN
        RETURN NULL;
    END IF;
    SELECT min(e.captured_at) INTO v_first FROM bridge.ungrouped_events(p_match) e WHERE e.kind = 'message';
    IF v_first IS NULL THEN
        SELECT w.id INTO v_waiting FROM bridge.turns w
        WHERE w.match_id = p_match AND w.kind = 'reply' AND w.state IN ('open', 'queued') AND w.id <> p_turn;
        IF v_waiting IS NULL THEN
            RETURN NULL;
        END IF;
    END IF;
    RETURN bridge.open_waiting(p_match, p_bot, v_first);
END
$$;
