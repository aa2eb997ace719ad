-- What waits on purpose, for the console, /metrics and `status`, beside metrics.sql. By index, whatever the history.
--
-- p_most: at most so many held turns and pauses are looked at; NULL: all
--
-- Returns {held: {cause: turns}, paused, taken_over, bots_paused}
--   held: open turns by why they are held, as not_now.sql names the causes
--   paused: conversations that are paused, without those of a paused bot; taken_over: of these by a human
CREATE OR REPLACE FUNCTION bridge.on_hold(p_most integer DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_now    timestamptz := bridge.now();
    v_held   jsonb;
    v_paused jsonb;
BEGIN
    SELECT coalesce(jsonb_object_agg(c.held, c.turns), '{}') INTO v_held
    FROM (SELECT h.held, count(*) AS turns
          FROM (SELECT t.held FROM bridge.turns t WHERE t.state = 'open' AND t.held IS NOT NULL LIMIT p_most) h
          GROUP BY h.held) c;
    SELECT jsonb_build_object(
        'paused', count(DISTINCT p.match_id), 'taken_over', count(*) FILTER (WHERE p.cause = 'human'),
        'bots_paused', count(p.bot_id))
    INTO v_paused
    FROM (SELECT n.match_id, n.bot_id, n.cause FROM bridge.pauses n
          WHERE n.cause <> 'left' AND coalesce(n.until, 'infinity') > v_now LIMIT p_most) p;
    RETURN v_paused || jsonb_build_object('held', v_held);
END
$$;
