-- Which of these messages have no text yet: for example a voice note, whose transcript comes later. A message that is gone
-- is not among them. An app with other tables replaces this function; `migrate` leaves a replaced one alone.
-- (OFFSET 0 as in history.sql: each is found by its id. `content` is a column of the table, or else that of `none`: a table
-- without it holds no texts that the bridge could wait for.)
CREATE OR REPLACE FUNCTION bridge.textless(p_messages uuid[]) RETURNS uuid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
BEGIN
    RETURN ARRAY(
        SELECT c.id FROM unnest(p_messages) AS c (id)
        CROSS JOIN (SELECT '' AS content) none
        CROSS JOIN LATERAL (SELECT content FROM {app}.messages w WHERE w.id = c.id OFFSET 0) m
        WHERE m.content IS NULL);
END
$$;
