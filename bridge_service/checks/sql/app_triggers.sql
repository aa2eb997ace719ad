-- Triggers of the app's own that notify one of the bridge's channels, as a predecessor of the bridge did.
-- Parameters: the oids of the app's tables, and the channels.
--
-- A trigger notifies a channel if its function says NOTIFY or pg_notify, or calls a function that does, and if the
-- channel stands in quotes in one of the two, behind NOTIFY, or among the trigger's arguments.
WITH tables AS (
    SELECT app.oid FROM unnest(%s::oid[]) AS app (oid)
    UNION
    SELECT t.relid FROM unnest(%s::oid[]) AS app (oid) CROSS JOIN pg_partition_tree(app.oid) t),
functions AS (
    SELECT p.oid, p.proname, regexp_replace(
               regexp_replace(coalesce(pg_get_function_sqlbody(p.oid), p.prosrc), '/\*.*?\*/', ' ', 'g'),
               '--[^\n]*', ' ', 'g') AS source
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'bridge')
      AND (p.prorettype = 'trigger'::regtype OR p.prosrc ~* '\m(pg_)?notify\M' OR p.prosqlbody IS NOT NULL)),
triggers AS (
    SELECT g.oid, g.tgname, g.tgrelid, g.tgtype, encode(g.tgargs, 'escape') AS arguments,
           concat_ws(E'\n', f.source, (
               SELECT string_agg(called.source, E'\n') FROM functions called
               WHERE called.oid <> f.oid AND called.source ~* '\m(pg_)?notify\M'
                 AND (position(lower(called.proname) || '(' IN lower(f.source)) > 0
                      OR position(format('"%%s"(', called.proname) IN f.source) > 0))) AS source
    FROM pg_trigger g JOIN functions f ON f.oid = g.tgfoid
    WHERE NOT g.tgisinternal AND g.tgparentid = 0 AND g.tgenabled IN ('O', 'A')
      AND g.tgrelid IN (SELECT t.oid FROM tables t))
SELECT format('%%I', g.tgname), format('%%I.%%I', n.nspname, c.relname), array_agg(k.channel ORDER BY k.channel)
FROM triggers g
JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN unnest(%s::text[]) AS k (channel)
  ON g.source ~ format('[''"$]%%s[''"$]', k.channel)
  OR g.source ~* format('\mNOTIFY\s+"?%%s\M', k.channel)
  OR g.source ~* '\mTG_ARGV\M' AND g.arguments ~ format('(^|\\000)%%s\\000', k.channel)
WHERE g.source ~* '\m(pg_)?notify\M'
GROUP BY g.oid, g.tgname, n.nspname, c.relname
ORDER BY n.nspname, c.relname, g.tgname
