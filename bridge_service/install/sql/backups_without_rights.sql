-- The owners of the app's tables that may not read all of schema bridge, as a dump of theirs has to.
SELECT DISTINCT o.rolname::text
FROM pg_class a
JOIN pg_roles o ON o.oid = a.relowner
LEFT JOIN pg_namespace n ON n.nspname = 'bridge'
WHERE a.oid = ANY (%(tables)s::text[]::regclass[]) AND NOT pg_has_role(o.oid, current_user, 'USAGE')
  AND (%(changes)s OR NOT has_schema_privilege(o.oid, n.oid, 'USAGE') OR EXISTS (
      SELECT FROM pg_class c
      WHERE c.relnamespace = n.oid AND pg_has_role(c.relowner, 'USAGE')
        AND CASE WHEN c.relkind = 'S' THEN NOT has_sequence_privilege(o.oid, c.oid, 'SELECT')
                 WHEN c.relkind IN ('r', 'p') THEN NOT has_table_privilege(o.oid, c.oid, 'SELECT') END))
ORDER BY 1
