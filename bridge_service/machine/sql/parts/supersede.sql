-- A newer message came: the reply is cancelled undelivered and its events move into the waiting turn, for one coherent
-- answer to all. The chain's length is inherited, or MAX_MERGES would never be reached (D2); so are its failures and
-- the time before which it is not asked again, or a message would make them forgotten (E4). Only the turn's own events
-- move; ungrouped ones are the scheduler's (D1).
-- Internal: the caller holds both turns' locks.
CREATE OR REPLACE FUNCTION bridge.supersede(p_turn bigint, p_waiting bigint) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_merges integer;
    v_answer jsonb;
BEGIN
    UPDATE bridge.events SET turn_id = p_waiting WHERE turn_id = p_turn;
    UPDATE bridge.turns newer
    SET merges = greatest(newer.merges, older.merges + 1), attempts = greatest(newer.attempts, older.attempts),
        takeovers = greatest(newer.takeovers, older.takeovers),
        last_error = coalesce(older.last_error, newer.last_error), refused = coalesce(older.refused, newer.refused),
        retry_at = greatest(newer.retry_at, older.retry_at),
        due_at = greatest(newer.due_at, newer.retry_at, older.retry_at)
    FROM bridge.turns older
    WHERE newer.id = p_waiting AND older.id = p_turn
    RETURNING newer.merges INTO v_merges;
    v_answer := bridge.cancel_turn(p_turn, 'superseded');
    RETURN v_answer || jsonb_build_object('outcome', 'superseded', 'merges', v_merges);
END
$$;
