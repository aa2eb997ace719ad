-- The bots of the console's list, and what each owes: those with a row of policy, with an unfinished turn, with a dead
-- one, or among the newest turns. At most `p_most` unfinished turns of a state, and dead ones, are counted.
--
-- Returns {bot, values: see bots_list.sql, open, queued, composing, typing, dead, standing: see bots_standing.sql}; `default`
--   and `environment` owe nothing, and have no standing.
CREATE OR REPLACE FUNCTION bridge.bots_load(p_limit integer, p_most integer) RETURNS SETOF jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
    WITH owed AS MATERIALIZED (
        SELECT u.bot_id, u.state, count(*) AS turns
        FROM ((SELECT t.bot_id, t.state FROM bridge.turns t WHERE t.state = 'open' LIMIT p_most)
              UNION ALL (SELECT t.bot_id, t.state FROM bridge.turns t WHERE t.state = 'queued' LIMIT p_most)
              UNION ALL (SELECT t.bot_id, t.state FROM bridge.turns t WHERE t.state IN ('composing', 'typing') LIMIT p_most)
              UNION ALL (SELECT t.bot_id, t.state FROM bridge.turns t WHERE t.state = 'dead' LIMIT p_most)) u
        GROUP BY 1, 2),
    shown AS (
        SELECT b.bot_id::text AS bot FROM bridge.bots b WHERE b.scope = 'bot'
        UNION SELECT o.bot_id::text FROM owed o
        UNION SELECT n.bot_id::text FROM (SELECT t.bot_id FROM bridge.turns t ORDER BY t.id DESC LIMIT 1000) n
        ORDER BY 1 LIMIT p_limit),
    standing AS MATERIALIZED (SELECT bridge.bots_standing(array_agg(s.bot::uuid)) AS bots FROM shown s)
    (SELECT jsonb_build_object(
         'bot', b.scope, 'values', jsonb_strip_nulls(to_jsonb(b) - 'scope' - 'bot_id'),
         'open', 0, 'queued', 0, 'composing', 0, 'typing', 0, 'dead', 0)
     FROM bridge.bots b WHERE b.scope IN ('environment', 'default') ORDER BY b.scope DESC)
    UNION ALL
    (SELECT jsonb_build_object(
         'bot', s.bot, 'values', coalesce((
             SELECT jsonb_strip_nulls(to_jsonb(b) - 'scope' - 'bot_id') FROM bridge.bots b
             WHERE b.scope = 'bot' AND b.bot_id = s.bot::uuid), '{}'),
         'open', 0, 'queued', 0, 'composing', 0, 'typing', 0, 'dead', 0)
         || coalesce((SELECT jsonb_object_agg(o.state, o.turns) FROM owed o WHERE o.bot_id = s.bot::uuid), '{}')
         || jsonb_build_object('standing', (SELECT n.bots -> s.bot FROM standing n))
     FROM shown s ORDER BY s.bot)
$$;
