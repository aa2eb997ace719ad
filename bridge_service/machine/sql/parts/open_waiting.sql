-- The conversation's waiting turn, locked; made if there is none (the upsert of T2).
--
-- p_first: the capture its group starts with; NULL: it is due now
-- p_delay: seconds from there until the group closes
-- Internal: events are moved into it by the caller, in the same transaction.
CREATE OR REPLACE FUNCTION bridge.open_waiting(
    p_match uuid, p_bot uuid, p_first timestamptz DEFAULT NULL, p_delay double precision DEFAULT NULL) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
    INSERT INTO bridge.turns AS waiting (kind, match_id, bot_id, state, opened_at, due_at, planned_at)
    SELECT 'reply', p_match, p_bot, 'open', f.first, f.planned, f.planned
    FROM (SELECT coalesce(p_first, bridge.now()) AS first,
                 coalesce(p_first + make_interval(secs => p_delay), bridge.now()) AS planned) f
    ON CONFLICT (match_id) WHERE bridge.is_waiting(kind, state)
    DO UPDATE SET opened_at = waiting.opened_at
    RETURNING waiting.id
$$;
