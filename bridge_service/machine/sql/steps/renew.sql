-- Renews the leases of these turns for a worker that still composes them. Returns the turns that were not renewed.
-- Either the worker has lost them, and their drafts will be refused (T6). Or another session locks them, for example a
-- delivery during which a trigger of the app takes long; the other turns do not wait for that lock.
CREATE OR REPLACE FUNCTION bridge.renew(p_turns bigint[], p_tokens uuid[], p_lease double precision) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    v_kept bigint[];
BEGIN
    SET LOCAL synchronous_commit = off;  -- lost in a crash, it is done again
    WITH mine AS (
        SELECT t.id FROM bridge.turns t
        JOIN unnest(p_turns, p_tokens) AS l (turn, token) ON l.turn = t.id AND l.token = t.token
        WHERE (t.state = 'composing') IS TRUE  -- by id, and never among all that are active
        ORDER BY t.id FOR NO KEY UPDATE OF t SKIP LOCKED),
    kept AS (
        UPDATE bridge.turns t SET due_at = bridge.now() + make_interval(secs => p_lease)
        FROM mine WHERE t.id = mine.id
        RETURNING t.id)
    SELECT coalesce(array_agg(id), '{}') INTO v_kept FROM kept;
    RETURN ARRAY(SELECT turn FROM unnest(p_turns) AS turn WHERE turn <> ALL (v_kept));
END
$$;
