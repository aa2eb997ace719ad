-- A step looks again after it has waited for a lock. Under REPEATABLE READ it would see the past. So a step that needs
-- this refuses another isolation level before it changes anything.
CREATE OR REPLACE FUNCTION bridge.assert_read_committed() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the bridge needs READ COMMITTED: ALTER ROLE % SET default_transaction_isolation = ''read committed''',
            session_user USING ERRCODE = 'feature_not_supported';
    END IF;
END
$$;
