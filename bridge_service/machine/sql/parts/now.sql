-- The only clock of the bridge's SQL. Tests replace this function by one that reads a clock they move; nothing in
-- production can set it short of replacing the function.
CREATE OR REPLACE FUNCTION bridge.now() RETURNS timestamptz
LANGUAGE sql VOLATILE AS $$ SELECT pg_catalog.clock_timestamp() $$;
