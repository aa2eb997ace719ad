-- The app's table of indicators, if it has one: (identity, name, what keeps the bridge from using it).
-- Parameters: the oid of `messages`, whose schema and owner it shares; the oid that is noted, or NULL; the role that owns
-- the bridge's functions. It reads catalogs alone. (A role that may create tables in the app's schema must not get its
-- triggers to run with that role's rights, so the owner counts.)
WITH given (messages, noted, owner) AS (SELECT %s::oid, %s::oid, %s::name),
found AS (
    SELECT c.oid, c.relowner, c.relrowsecurity, c.relforcerowsecurity, n.nspname, c.relname, m.relowner AS wanted, g.owner
    FROM given g JOIN pg_catalog.pg_class m ON m.oid = g.messages
    JOIN pg_catalog.pg_class c ON c.oid = coalesce(
        (SELECT t.oid FROM pg_catalog.pg_class t WHERE t.oid = g.noted AND t.relnamespace = m.relnamespace),
        (SELECT t.oid FROM pg_catalog.pg_class t
         WHERE t.relname = 'typing_events' AND t.relnamespace = m.relnamespace AND t.relkind IN ('r', 'p')))
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace),
faults (place, words) AS (
    SELECT w.place, CASE WHEN a.attnum IS NULL THEN format('it has no column %%s', w.name)
                         ELSE format('column %%s has type %%s, needed is %%s', w.name, format_type(a.atttypid, NULL),
                                     format_type(w.type, NULL)) END
    FROM found f
    CROSS JOIN (VALUES (1, 'match_id', 'uuid'::pg_catalog.regtype), (2, 'user_id', 'uuid'), (3, 'is_typing', 'bool'),
                       (4, 'started_at', 'timestamptz'), (5, 'updated_at', 'timestamptz')) AS w (place, name, type)
    LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = f.oid AND a.attname = w.name AND NOT a.attisdropped
    WHERE a.atttypid IS DISTINCT FROM w.type
    UNION ALL
    SELECT 6, format('column %%I takes no NULL and has no default', a.attname)
    FROM found f JOIN pg_catalog.pg_attribute a ON a.attrelid = f.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
      AND a.attname NOT IN ('match_id', 'user_id', 'is_typing', 'started_at', 'updated_at')
    UNION ALL
    SELECT 7, format('it belongs to role %%s, and messages to %%s', pg_catalog.pg_get_userbyid(f.relowner),
                     pg_catalog.pg_get_userbyid(f.wanted))
    FROM found f WHERE f.relowner <> f.wanted
    UNION ALL
    SELECT 8, format('role %%s lacks %%s on it', f.owner, string_agg(r.name, ', ' ORDER BY r.name))
    FROM found f CROSS JOIN (VALUES ('INSERT'), ('SELECT'), ('UPDATE')) AS r (name)
    WHERE NOT pg_catalog.has_table_privilege(f.owner, f.oid, r.name) GROUP BY f.owner
    UNION ALL
    SELECT 9, format('row-level security rules role %%s', f.owner)
    FROM found f JOIN pg_catalog.pg_roles r ON r.rolname = f.owner
    WHERE f.relrowsecurity AND NOT r.rolsuper AND NOT r.rolbypassrls
      AND (f.relforcerowsecurity OR NOT pg_catalog.pg_has_role(f.owner, f.relowner, 'USAGE')))
SELECT f.oid, format('%%I.%%I', f.nspname, f.relname),
       ARRAY(SELECT x.words FROM faults x ORDER BY x.place, x.words)
FROM found f
