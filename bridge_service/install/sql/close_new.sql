-- Closes the tables that this run's migrations made: default privileges may have opened them. {known}: the tables that were
-- there before. A role that has default privileges in schema bridge itself keeps its rights.
DO $close$
DECLARE
    v_kind    text;
    v_name    regclass;
    v_grantee text;
BEGIN
    FOR v_kind, v_name, v_grantee IN
        SELECT DISTINCT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
        FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
        WHERE c.relnamespace = 'bridge'::regnamespace AND c.relkind IN ('r', 'p', 'S') AND a.grantee <> c.relowner
          AND pg_has_role(c.relowner, 'USAGE')
          AND c.relname <> ALL ({known}::name[])
          AND NOT EXISTS (
              SELECT FROM pg_default_acl d CROSS JOIN aclexplode(d.defaclacl) e
              WHERE d.defaclnamespace = c.relnamespace AND e.grantee = a.grantee)
    LOOP
        EXECUTE format('REVOKE ALL ON %s %s FROM %s', v_kind, v_name, v_grantee);
    END LOOP;
END
$close$
