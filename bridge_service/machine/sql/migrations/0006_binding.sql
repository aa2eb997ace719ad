-- Found by: EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('bridge.installation') AND attname = 'messages' AND NOT attisdropped)
-- The app's tables that the bridge serves, by identity: another schema with tables of the same names, or a search path that
-- leads there, does not move the installation. A regclass follows its table through a renaming, a dump and pg_upgrade.
ALTER TABLE bridge.installation
    ADD COLUMN profiles regclass,
    ADD COLUMN matches  regclass,
    ADD COLUMN messages regclass,
    ADD COLUMN laid_for text[];  -- their names in the functions, in this order; another name there now means a renaming

-- Row-level security on the bridge's tables made every pg_dump of the app's database fail, also as a role that may read
-- all data. The missing grants stay. A role that was granted a table and saw no row of it sees none from now on either.
DO $$
DECLARE
    v_table   regclass;
    v_grantee text;
BEGIN
    FOR v_table, v_grantee IN
        SELECT DISTINCT c.oid, CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END
        FROM pg_class c
        CROSS JOIN LATERAL (
            SELECT a.grantee FROM aclexplode(c.relacl) a
            UNION
            SELECT a.grantee FROM pg_attribute t CROSS JOIN aclexplode(t.attacl) a WHERE t.attrelid = c.oid) g
        LEFT JOIN pg_roles r ON r.oid = g.grantee
        WHERE c.relnamespace = 'bridge'::regnamespace AND c.relkind IN ('r', 'p') AND c.relrowsecurity
          AND pg_has_role(c.relowner, 'USAGE') AND g.grantee <> c.relowner AND (r.rolsuper OR r.rolbypassrls) IS NOT TRUE
          AND NOT EXISTS (
              SELECT FROM pg_policy p CROSS JOIN unnest(p.polroles) AS named (oid)
              WHERE p.polrelid = c.oid
                AND CASE WHEN named.oid = 0 THEN true
                         WHEN g.grantee = 0 THEN false
                         ELSE pg_has_role(g.grantee, named.oid, 'USAGE') END)
    LOOP
        EXECUTE format('REVOKE ALL ON TABLE %s FROM %s', v_table, v_grantee);
    END LOOP;

    FOR v_table IN
        SELECT c.oid FROM pg_class c
        WHERE c.relnamespace = 'bridge'::regnamespace AND c.relkind IN ('r', 'p') AND c.relrowsecurity
          AND pg_has_role(c.relowner, 'USAGE')
        ORDER BY c.relname
    LOOP
        EXECUTE format('DROP POLICY IF EXISTS bridge_reader ON %s', v_table);
        EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', v_table);
    END LOOP;
END
$$;
