-- What was laid into this database, for `check`: the newest migration, each function's digest of the file it was laid
-- from, and those that are no longer as they were laid.
-- Returns {migration, installed_at, digests: {name: digest}, changed: [name, ...]}.
CREATE OR REPLACE FUNCTION bridge.installed() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
    SELECT jsonb_build_object(
        'migration', (SELECT max(m.number) FROM bridge.migrations m),
        'installed_at', (SELECT i.installed_at FROM bridge.installation i),
        'digests', coalesce(jsonb_object_agg(l.name, l.digest), '{}'),
        'changed', coalesce(jsonb_agg(l.name ORDER BY l.name) FILTER (WHERE l.source IS DISTINCT FROM (
            SELECT md5(string_agg(pg_get_functiondef(p.oid), '' ORDER BY p.oid))
            FROM pg_catalog.pg_proc p
            WHERE p.pronamespace = 'bridge'::pg_catalog.regnamespace AND p.proname = l.name)), '[]'))
    FROM bridge.laid_functions l
$$;
