-- A newer message came: the reply is cancelled undelivered and its events move into the waiting turn, for one coherent
-- answer to all. The chain's length is inherited, or MAX_MERGES would never be reached (D2); so are its failures and
-- the time before which it is not asked again, or a message would make them forgotten (E4). Only the turn's own events
-- move; ungrouped ones are the scheduler's (D1).
--
-- A draft that is thrown away counts in `merges`, a call under way that is ended counts in `overtakes` (E3). After
-- MAX_MERGES calls the next one waits until the group is quiet: the open turn's `due_at` follows its last message from
-- here on, and group_events goes on with that. A queued turn's window has closed, and stays so.
--
-- A reply of which a message was said already is not superseded: its turn ends, and the rest is withheld (P2).
--
-- p_policy: of the bot, as policies.sql has it; NULL: read here if it is needed
-- Internal: the caller holds both turns' locks.
CREATE OR REPLACE FUNCTION bridge.supersede(p_turn bigint, p_waiting bigint, p_policy jsonb DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    w        bridge.turns%ROWTYPE;
    v_policy jsonb := p_policy;
    v_quiet  timestamptz;
    v_said   jsonb;
BEGIN
    v_said := bridge.end_said(p_turn, 'interrupted');
    IF v_said IS NOT NULL THEN
        RETURN v_said;
    END IF;
    UPDATE bridge.events SET turn_id = p_waiting WHERE turn_id = p_turn;
    UPDATE bridge.turns newer
    SET merges = greatest(newer.merges, older.merges + (older.state = 'typing')::integer),
        overtakes = greatest(
            newer.overtakes, older.overtakes + (older.state = 'composing' AND older.token IS NOT NULL)::integer),
        said = newer.said || older.said, withheld = newer.withheld || older.withheld,
        attempts = greatest(newer.attempts, older.attempts), takeovers = greatest(newer.takeovers, older.takeovers),
        last_error = coalesce(older.last_error, newer.last_error), refused = coalesce(older.refused, newer.refused),
        retry_at = greatest(newer.retry_at, older.retry_at),
        due_at = greatest(newer.due_at, newer.retry_at, older.retry_at)
    FROM bridge.turns older
    WHERE newer.id = p_waiting AND older.id = p_turn
    RETURNING newer.* INTO w;
    IF w.overtakes > 0 AND w.state = 'open' THEN
        v_policy := coalesce(v_policy, bridge.policies(ARRAY[w.bot_id]) -> w.bot_id::text);
        IF w.overtakes >= (v_policy ->> 'max_merges')::integer THEN
            v_quiet := bridge.quiet_at(
                w.opened_at, (SELECT max(e.captured_at) FROM bridge.events e WHERE e.turn_id = w.id),
                (v_policy ->> 'grouping_delay')::double precision, (v_policy ->> 'grouping_max')::double precision);
            UPDATE bridge.turns SET due_at = greatest(due_at, v_quiet), planned_at = greatest(planned_at, v_quiet)
            WHERE id = w.id;
        END IF;
    END IF;
    RETURN bridge.cancel_turn(p_turn, 'superseded')
        || jsonb_build_object('outcome', 'superseded', 'merges', w.merges + w.overtakes);
END
$$;
