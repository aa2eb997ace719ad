-- Holds the due turns of sleeping bots until the wake-up, so that nothing is pushed in quiet hours (Q1): open ones, openers too,
-- and those whose push no worker took. No attempt is counted. At most `p_limit` of each state are looked at. What is composed or
-- pushed already is held by its claim.
--
-- Returns the open turns that are due and whose bots are awake, locked: the caller may push these and no others. Those that
-- wake_turns.sql has still to plan are left out.
CREATE OR REPLACE FUNCTION bridge.hold_due(p_now timestamptz, p_limit integer) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_hashjoin = on SET jit = off AS $$
DECLARE
    v_epoch  bigint := floor(extract(epoch FROM p_now));
    v_open   bigint[];
    v_queued bigint[];
    v_held   bigint[];
BEGIN
    v_open := ARRAY(
        SELECT t.id FROM bridge.turns t
        WHERE t.state = 'open' AND t.due_at <= p_now AND (t.held = 'hours' AND t.held_limit <= v_epoch) IS NOT TRUE
        ORDER BY t.due_at LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED);
    v_queued := ARRAY(
        SELECT t.id FROM bridge.turns t
        WHERE t.state = 'queued' AND t.due_at <= p_now
        ORDER BY t.due_at LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED);
    WITH due AS MATERIALIZED (
        SELECT t.id, t.bot_id FROM bridge.turns t WHERE t.id = ANY (v_open || v_queued)),
    asleep AS MATERIALIZED (
        SELECT r.bot_id, r.asleep_until FROM bridge.rest_of(ARRAY(SELECT DISTINCT d.bot_id FROM due d), p_now) r
        WHERE r.asleep_until IS NOT NULL),
    held AS (
        UPDATE bridge.turns t
        SET state = 'open', held = 'hours', held_until = a.asleep_until, held_limit = extract(epoch FROM a.asleep_until),
            due_at = greatest(a.asleep_until, t.retry_at), pushes = 0
        FROM due d JOIN asleep a ON a.bot_id = d.bot_id
        WHERE t.id = d.id
        RETURNING t.id)
    SELECT array_agg(h.id) INTO v_held FROM held h;
    RETURN ARRAY(SELECT o.id FROM unnest(v_open) AS o (id) EXCEPT SELECT h.id FROM unnest(v_held) AS h (id));
END
$$;
