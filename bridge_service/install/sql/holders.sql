-- The sessions that hold a lock on the app's tables or the bridge's, in a mode that `migrate` or `uninstall` has to wait
-- for. pg_locks shows every lock to every role. Without pg_read_all_stats, pg_stat_activity hides the kind and the time of
-- another role's session.
--
-- Parameters: the names of the app's tables; the modes that do not count.
WITH watched (oid) AS (
    SELECT c.oid FROM pg_class c WHERE c.relnamespace = to_regnamespace('bridge')
    UNION SELECT to_regclass(name)::oid FROM unnest(%(tables)s::text[]) AS t (name)
    UNION SELECT t.tgrelid FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid AND p.pronamespace = to_regnamespace('bridge')
), spread (oid) AS (
    SELECT w.oid FROM watched w
    -- A trigger on a partitioned table is made on its partitions.
    UNION SELECT p.relid FROM watched w CROSS JOIN LATERAL pg_partition_tree(w.oid) p
)
SELECT l.virtualtransaction, l.pid, l.relation::oid::bigint, l.relation::regclass::text,
       string_agg(DISTINCT l.mode, ', '), a.application_name, a.usename::text, a.xact_start,
       -- Of the sessions that lock tables, only autovacuum's workers act for no role.
       l.pid IS NOT NULL AND a.pid IS NOT NULL AND a.usesysid IS NULL
FROM spread s
JOIN pg_locks l ON l.locktype = 'relation' AND l.relation = s.oid AND l.granted
     AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.mode <> ALL (%(harmless)s) AND l.pid IS DISTINCT FROM pg_backend_pid()
GROUP BY l.virtualtransaction, l.pid, l.relation, a.application_name, a.usename, a.xact_start, a.pid, a.usesysid
ORDER BY a.xact_start NULLS FIRST, l.pid
