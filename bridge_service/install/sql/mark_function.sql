-- A dump of the schema alone has this comment and no row of `laid_functions`. CREATE OR REPLACE keeps the comment, so a
-- function that the app replaced differs from the digest in it.
DO $mark$
BEGIN
    EXECUTE (
        SELECT format('COMMENT ON FUNCTION %s IS %L', p.oid::regprocedure, 'laid ' || md5(pg_get_functiondef(p.oid)))
        FROM pg_proc p WHERE p.pronamespace = 'bridge'::regnamespace AND p.proname = '{name}');
END
$mark$
