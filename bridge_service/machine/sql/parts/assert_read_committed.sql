-- The steps look again after they waited for a lock; under REPEATABLE READ they would look at the past. A database or
-- role with another default is refused in words, before anything happens.
CREATE OR REPLACE FUNCTION bridge.assert_read_committed() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the bridge needs READ COMMITTED: ALTER ROLE % SET default_transaction_isolation = ''read committed''',
            session_user USING ERRCODE = 'feature_not_supported';
    END IF;
END
$$;
