-- The app's tables to which the installation is bound: (contract's name, identity, present name, name in the functions).
-- The present name is NULL if the table is gone. No row if the installation is bound to none. The column of the table that
-- an app need not have is filled in: it comes with migration 0026.
SELECT b.name, b.oid, (
           SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE c.oid = b.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f')),
       b.laid_for
FROM bridge.installation i
CROSS JOIN LATERAL (VALUES ('profiles', i.profiles::oid, i.laid_for[1]),
                           ('matches', i.matches::oid, i.laid_for[2]),
                           ('messages', i.messages::oid, i.laid_for[3]),
                           ('typing_events', {typing_events}::oid, i.laid_for[4])) AS b (name, oid, laid_for)
WHERE b.oid IS NOT NULL
