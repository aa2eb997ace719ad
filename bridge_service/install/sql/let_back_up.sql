-- The owner of the app's tables dumps its database with the bridge in it. It may read every text anyway, and call no step.
DO $back_up$
DECLARE
    v_kind text;
    v_name regclass;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA bridge TO %I', {role});
    FOR v_kind, v_name IN
        SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid FROM pg_class c
        WHERE c.relnamespace = 'bridge'::regnamespace AND c.relkind IN ('r', 'p', 'S') AND pg_has_role(c.relowner, 'USAGE')
        ORDER BY c.relname
    LOOP
        EXECUTE format('GRANT SELECT ON %s %s TO %I', v_kind, v_name, {role});
    END LOOP;
END
$back_up$
