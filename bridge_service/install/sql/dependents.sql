-- The objects outside schema `bridge` that depend on it, except the bridge's triggers: `uninstall` would drop them. An
-- object is part of the schema if it lies in it, or depends on such an object internally (an index, a default, a row type).
WITH RECURSIVE part (classid, objid) AS (
    SELECT 'pg_namespace'::regclass::oid, n.oid FROM pg_namespace n WHERE n.nspname = 'bridge'
    UNION
    SELECT d.classid, d.objid
    FROM part p JOIN pg_depend d ON d.refclassid = p.classid AND d.refobjid = p.objid
    WHERE d.deptype <> 'n' OR p.classid = 'pg_namespace'::regclass)
SELECT DISTINCT
       -- A view depends by its rule, which is an inner part of it.
       coalesce((SELECT pg_describe_object(i.refclassid, i.refobjid, 0) FROM pg_depend i
                 WHERE i.classid = d.classid AND i.objid = d.objid AND i.deptype = 'i' LIMIT 1),
                pg_describe_object(d.classid, d.objid, 0)),
       pg_describe_object(d.refclassid, d.refobjid, 0)
FROM part p JOIN pg_depend d ON d.refclassid = p.classid AND d.refobjid = p.objid
WHERE d.deptype = 'n'
  AND (d.classid, d.objid) NOT IN (SELECT p.classid, p.objid FROM part p)
  AND NOT EXISTS (
      SELECT FROM pg_trigger t
      WHERE d.classid = 'pg_trigger'::regclass AND t.oid = d.objid AND t.tgname = ANY (%(triggers)s))
ORDER BY 1, 2
