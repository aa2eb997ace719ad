-- Raises BRG01 where rows are missing that `migrate` writes, as after the restore of a dump of the schema alone; else
-- true. `migrate` finishes such an installation. Until then the moment of the installation is unknown, and a count of
-- the messages since that moment would be wrong in silence.
CREATE OR REPLACE FUNCTION bridge.assert_complete() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_empty text := (
        SELECT string_agg(t.name, ', ') FROM (
            SELECT 'bridge.installation' AS name WHERE NOT EXISTS (SELECT FROM bridge.installation)
            UNION ALL SELECT 'bridge.migrations' WHERE NOT EXISTS (SELECT FROM bridge.migrations)
            UNION ALL SELECT 'bridge.laid_functions' WHERE NOT EXISTS (SELECT FROM bridge.laid_functions)) t);
BEGIN
    IF v_empty IS NOT NULL THEN
        RAISE EXCEPTION 'no row in %, as after a restore of the schema alone', v_empty USING ERRCODE = 'BRG01';
    END IF;
    RETURN true;
END
$$;
