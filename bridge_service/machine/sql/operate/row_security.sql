-- What row-level security leaves of the app's tables to the bridge's owner, as whom the adapter runs, and this too: for
-- `check`. Nothing fails without a policy: a match that may not be seen is one without a bot.
--
-- Looked at is what the functions name, which a renamed table may have left to a view.
-- rows: 'all' (every row is seen and, in messages, may be written), 'none', or 'unsure': a view, or policies that
--   decide row by row; of their expressions only `true` is understood here.
-- policy: the command that opens the table.
-- Returns {owner, tables: [{name, rows, policy}, ...]}; a table that is gone is not told of.
CREATE OR REPLACE FUNCTION bridge.row_security() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH policies AS (
        SELECT p.polrelid, p.polcmd, p.polpermissive,
               pg_get_expr(p.polqual, p.polrelid) AS shows,
               pg_get_expr(coalesce(p.polwithcheck, p.polqual), p.polrelid) AS takes
        FROM pg_policy p
        WHERE EXISTS (SELECT FROM unnest(p.polroles) AS r (oid)
                      WHERE r.oid = 0 OR pg_has_role(current_user, r.oid, 'USAGE'))),
    needs AS (
        SELECT n.name, n.command, c.oid, c.relkind
        FROM bridge.installation i
        CROSS JOIN LATERAL (VALUES ('profiles', 'r', i.laid_for[1]),
                                   ('matches', 'r', i.laid_for[2]),
                                   ('messages', 'r', i.laid_for[3]),
                                   ('messages', 'a', i.laid_for[3])) AS n (name, command, laid_for)
        JOIN pg_class c ON c.relname = (parse_ident(n.laid_for))[2]
        JOIN pg_namespace s ON s.oid = c.relnamespace AND s.nspname = (parse_ident(n.laid_for))[1]),
    found AS (
        SELECT n.name, n.oid, CASE
                   WHEN n.relkind NOT IN ('r', 'p') THEN 'unsure'
                   WHEN NOT row_security_active(n.oid) THEN 'all'
                   WHEN NOT p.permitted THEN 'none'
                   WHEN p.open AND NOT p.restricted THEN 'all'
                   ELSE 'unsure'
               END AS rows
        FROM needs n CROSS JOIN LATERAL (
            SELECT coalesce(bool_or(q.polpermissive AND q.expression IS NOT NULL), false) AS permitted,
                   coalesce(bool_or(q.polpermissive AND q.expression = 'true'), false) AS open,
                   coalesce(bool_or(NOT q.polpermissive AND q.expression <> 'true'), false) AS restricted
            FROM (SELECT s.polpermissive, CASE n.command WHEN 'r' THEN s.shows ELSE s.takes END AS expression
                  FROM policies s WHERE s.polrelid = n.oid AND s.polcmd IN ('*', n.command::"char")) q) p)
    SELECT jsonb_build_object('owner', current_user, 'tables', coalesce(jsonb_agg(t.told ORDER BY t.name), '[]'))
    FROM (
        SELECT f.name, jsonb_build_object(
            'name', f.name,
            'rows', CASE WHEN bool_or(f.rows = 'none') THEN 'none'
                         WHEN bool_or(f.rows = 'unsure') THEN 'unsure'
                         ELSE 'all' END,
            'policy', format('CREATE POLICY %I ON %s TO %I USING (true) WITH CHECK (true)',
                             CASE WHEN EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = f.oid AND p.polname = 'bridge')
                                  THEN 'bridge_all' ELSE 'bridge' END, f.oid::regclass, current_user)) AS told
        FROM found f GROUP BY f.name, f.oid) t
$$;
