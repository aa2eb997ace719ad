-- Row-level security hides rows without an error, and a hidden row looks like one that is gone. So a step asks here
-- before it ends a turn as `gone`. Where no policy opens a table this raises as for a missing right, and the turn waits
-- for the operator. Where policies decide row by row it raises as for an unreadable row, which counts as an attempt.
-- `dead retry` brings back a turn that died of it.
CREATE OR REPLACE FUNCTION bridge.assert_rows_seen() RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_hidden record;
BEGIN
    SELECT t ->> 'name' AS name, t ->> 'rows' AS rows INTO v_hidden
    FROM jsonb_array_elements(bridge.row_security() -> 'tables') t
    WHERE t ->> 'rows' <> 'all'
    ORDER BY t ->> 'rows' LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'row-level security may hide rows of % from role %: see python -m bridge_service check',
            v_hidden.name, current_user
            USING ERRCODE = CASE v_hidden.rows WHEN 'none' THEN 'insufficient_privilege' ELSE 'no_data_found' END;
    END IF;
END
$$;
