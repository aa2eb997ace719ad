-- Where the app's tables are while the installation does not say it: in the schema with the bridge's triggers, else in
-- that of the `messages` that the search path finds. (name, oid or NULL, quoted and qualified name)
-- Parameter: the contract's names.
SELECT w.name, c.oid, format('%%I.%%I', s.nspname, w.name)
FROM (SELECT n.oid, n.nspname FROM pg_namespace n
      WHERE n.oid = coalesce(
          (SELECT c.relnamespace FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
           WHERE t.tgname = 'bridge_after_message' AND t.tgparentid = 0 LIMIT 1),
          (SELECT c.relnamespace FROM pg_class c WHERE c.oid = to_regclass('messages')),
          to_regnamespace('public'),
          'pg_catalog'::regnamespace)) s
CROSS JOIN unnest(%s) AS w (name)
LEFT JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = w.name
