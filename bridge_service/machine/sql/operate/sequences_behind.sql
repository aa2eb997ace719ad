-- The sequences of schema bridge that give out ids which their tables hold already, for `check`: a restore or a
-- cut-over of logical replication leaves them so. Found in the catalog, so that a table of a later migration is looked
-- at, too.
-- Returns [name, ...].
CREATE OR REPLACE FUNCTION bridge.sequences_behind() RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_sequence regclass;
    v_table    regclass;
    v_column   name;
    v_behind   boolean;
    v_found    text[] := '{}';
BEGIN
    FOR v_sequence, v_table, v_column IN
        SELECT s.oid, d.refobjid, a.attname
        FROM pg_class s
        JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.deptype IN ('a', 'i')
                        AND d.refclassid = 'pg_class'::regclass
        JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE s.relnamespace = 'bridge'::regnamespace AND s.relkind = 'S'
        ORDER BY s.relname
    LOOP
        EXECUTE format('SELECT (SELECT max(%I) FROM %s) >= last_value + is_called::integer FROM %s', v_column, v_table, v_sequence)
        INTO v_behind;
        IF v_behind THEN
            v_found := v_found || v_sequence::text;
        END IF;
    END LOOP;
    RETURN v_found;
END
$$;
