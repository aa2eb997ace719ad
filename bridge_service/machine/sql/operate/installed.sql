-- What was laid into this database, for `check`: the newest migration, each function's digest of the file it was laid
-- from, and those that are no longer as they were laid; and the app's tables that the installation is bound to, each
-- with its identity, its present name (NULL: it is gone), its name in the functions, what has this name now, and
-- whether that is a view.
-- Returns {migration, installed_at, digests: {name: digest}, changed: [name, ...],
--          tables: {name: {oid, name, laid_for, found, view}}}.
CREATE OR REPLACE FUNCTION bridge.installed() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
    SELECT jsonb_build_object(
        'migration', (SELECT max(m.number) FROM bridge.migrations m),
        'installed_at', (SELECT i.installed_at FROM bridge.installation i),
        'tables', (
            SELECT jsonb_object_agg(b.name, jsonb_build_object(
                'oid', b.oid::bigint, 'laid_for', b.laid_for, 'found', f.oid::bigint, 'view', f.relkind IS NOT DISTINCT FROM 'v',
                'name', (SELECT format('%I.%I', n.nspname, c.relname)
                         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                         WHERE c.oid = b.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f'))))
            FROM bridge.installation i
            CROSS JOIN LATERAL (VALUES ('profiles', i.profiles::oid, i.laid_for[1]),
                                       ('matches', i.matches::oid, i.laid_for[2]),
                                       ('messages', i.messages::oid, i.laid_for[3]),
                                       ('typing_events', i.typing_events::oid, i.laid_for[4])) AS b (name, oid, laid_for)
            -- Not by to_regclass, which raises where the owner may not enter the schema.
            LEFT JOIN LATERAL (
                SELECT c.oid, c.relkind FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE ARRAY[n.nspname, c.relname]::text[] = parse_ident(b.laid_for)
                  AND c.relname = (parse_ident(b.laid_for))[2]) f ON true
            WHERE b.oid IS NOT NULL),
        'digests', coalesce(jsonb_object_agg(l.name, l.digest), '{}'),
        'changed', coalesce(jsonb_agg(l.name ORDER BY l.name) FILTER (WHERE l.source IS DISTINCT FROM (
            SELECT md5(string_agg(pg_get_functiondef(p.oid), '' ORDER BY p.oid))
            FROM pg_catalog.pg_proc p
            WHERE p.pronamespace = 'bridge'::pg_catalog.regnamespace AND p.proname = l.name)), '[]'))
    FROM bridge.laid_functions l
$$;
