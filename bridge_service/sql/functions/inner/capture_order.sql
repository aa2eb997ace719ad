-- The places of a conversation's lines, from 1: what the bridge knows stands in the order of its capture, a reply just after
-- what it answers. The rest, which only the app's times place, stays where it is.
--
-- p_lines: messages in the order of the app's times. The lines that are known share their own places out among them.
CREATE OR REPLACE FUNCTION bridge.capture_order(p_match uuid, p_lines uuid[])
RETURNS TABLE (message_id uuid, place bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH known AS MATERIALIZED (SELECT k.* FROM bridge.known_lines(p_match, p_lines) k),
    lines AS (
        SELECT l.message_id, l.number, k.message_id IS NOT NULL AS is_known,
               row_number() OVER (PARTITION BY k.message_id IS NOT NULL ORDER BY l.number) AS slot,
               row_number() OVER (PARTITION BY k.message_id IS NOT NULL ORDER BY k.event_id, k.ours, l.number) AS rank
        FROM unnest(p_lines) WITH ORDINALITY AS l (message_id, number)
        LEFT JOIN known k USING (message_id))
    SELECT l.message_id, s.number FROM lines l JOIN lines s ON s.is_known = l.is_known AND s.slot = l.rank;
END
$$;
