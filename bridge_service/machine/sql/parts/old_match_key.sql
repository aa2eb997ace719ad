-- The advisory lock of a match without an event row, which is one from before the installation. It takes the row's place in
-- H2. There are 4,096 of them: a transaction of the app that holds all of them fits into PostgreSQL's lock table (C5).
CREATE OR REPLACE FUNCTION bridge.old_match_key(p_match uuid) RETURNS bigint
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 7092319476285440000 + floor(4096 * bridge.draw(p_match, 'lock'))::bigint
$$;
