-- The lines of a history in the order of capture. A line that the bridge knows takes its place in that order, a reply
-- just after what it answers. A line that only the app's time places stays where it is. So neither a wrong clock nor a
-- replaced `history` turns the order round.
--
-- p_lines: [{message_id, ...}, ...] in the order of the app's times. The known lines exchange places only among
--   themselves.
CREATE OR REPLACE FUNCTION bridge.capture_order(p_match uuid, p_lines jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_messages uuid[] := ARRAY(SELECT (l.line ->> 'message_id')::uuid FROM jsonb_array_elements(p_lines) AS l (line));
BEGIN
    -- Nearly always the lines stand in that order already.
    PERFORM FROM (
        SELECT k.place < lag(k.place) OVER (ORDER BY k.number) AS is_before
        FROM (SELECT array_position(v_messages, l.message_id) AS number, l.event_id * 2 + l.ours::integer AS place
              FROM bridge.known_lines(p_match, v_messages) l) k
        WHERE k.number IS NOT NULL) s
    WHERE s.is_before;
    IF NOT FOUND THEN
        RETURN p_lines;
    END IF;
    RETURN (
        WITH told AS MATERIALIZED (
            SELECT l.line, l.number, (l.line ->> 'message_id')::uuid AS message_id
            FROM jsonb_array_elements(p_lines) WITH ORDINALITY AS l (line, number)),
        known AS MATERIALIZED (
            SELECT k.* FROM bridge.known_lines(p_match, v_messages) k),
        ranked AS MATERIALIZED (
            SELECT t.line, t.number, k.message_id IS NOT NULL AS is_known,
                   row_number() OVER (PARTITION BY k.message_id IS NOT NULL ORDER BY t.number) AS slot,
                   row_number() OVER (PARTITION BY k.message_id IS NOT NULL ORDER BY k.event_id, k.ours, t.number) AS rank
            FROM told t LEFT JOIN known k ON k.message_id = t.message_id)
        SELECT jsonb_agg(r.line ORDER BY s.number)
        FROM ranked r JOIN ranked s ON s.is_known = r.is_known AND s.slot = r.rank);
END
$$;
