-- The bridge's triggers, by their names. (name, table, its oid, whether it fires, whether it belongs to a partition)
SELECT quote_ident(t.tgname), format('%%I.%%I', n.nspname, c.relname), c.oid, t.tgenabled IN ('O', 'A'), t.tgparentid <> 0
FROM pg_trigger t
JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE t.tgname = ANY (%s)
ORDER BY 2, 1
