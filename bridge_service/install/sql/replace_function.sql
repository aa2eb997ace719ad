-- Replaced in place, so an INSERT that calls the function finds it. It is dropped first only if its signature is new.
DO $replace$
DECLARE
    v_definition text := $definition$
{definition}
$definition$;
    v_replaced boolean := false;
    v_function text;
BEGIN
    BEGIN
        EXECUTE v_definition;
        v_replaced := (SELECT count(*) = 1 FROM pg_proc
                       WHERE pronamespace = 'bridge'::regnamespace AND proname = '{name}');
    EXCEPTION WHEN invalid_function_definition THEN
        NULL;
    END;
    IF NOT v_replaced THEN
        FOR v_function IN SELECT oid::regprocedure FROM pg_proc
                          WHERE pronamespace = 'bridge'::regnamespace AND proname = '{name}' LOOP
            EXECUTE 'DROP FUNCTION ' || v_function;
        END LOOP;
        EXECUTE v_definition;
    END IF;
END
$replace$
