-- The roles that an earlier run let read: only let_read.sql grants columns of turns by name. A grant on the whole table is
-- an operator's own.
SELECT DISTINCT r.rolname::text
FROM pg_attribute t CROSS JOIN aclexplode(t.attacl) a JOIN pg_roles r ON r.oid = a.grantee
WHERE t.attrelid = to_regclass('bridge.turns') AND t.attname = 'state' AND a.privilege_type = 'SELECT'
  AND has_table_privilege(a.grantee, to_regclass('bridge.events'), 'SELECT')
ORDER BY 1
