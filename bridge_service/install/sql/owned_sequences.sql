-- The sequences of schema bridge that give a table its ids: (sequence, table, column), quoted.
SELECT format('%I.%I', n.nspname, s.relname), format('%I.%I', n.nspname, t.relname), quote_ident(a.attname)
FROM pg_class s
JOIN pg_namespace n ON n.oid = s.relnamespace
JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.deptype IN ('a', 'i')
                AND d.refclassid = 'pg_class'::regclass
JOIN pg_class t ON t.oid = d.refobjid AND t.relnamespace = s.relnamespace
JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE n.nspname = 'bridge' AND s.relkind = 'S'
ORDER BY s.relname
