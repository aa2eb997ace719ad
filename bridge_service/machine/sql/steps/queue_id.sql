-- The ID that stands in the names of the queue's keys in Redis, `dramatiq:{ID}:...`, so that installations which share
-- a Redis do not take each other's ids.
--
-- The stored id alone would be the same in a copy of this database, as staging often is. A dump that is restored has
-- another server or another oid. A physical copy shares both with its original, and has another timeline once it is
-- promoted. A disk snapshot that only recovers from a crash shares all of it: there the operator draws another id,
-- UPDATE bridge.installation SET id = gen_random_uuid().
--
-- A failover changes the timeline, too. Schedulers and workers ask again every few seconds, and the scheduler pushes
-- again. A managed PostgreSQL may offer one of the two functions to no role: then the ID is made of the rest.
CREATE OR REPLACE FUNCTION bridge.queue_id() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_installation uuid := (SELECT i.id FROM bridge.installation i);
    v_server       text := '';
    v_timeline     text := '';
BEGIN
    IF v_installation IS NULL THEN
        RAISE undefined_table USING MESSAGE = 'bridge.installation is empty';  -- a schema that was restored without its rows
    END IF;
    IF pg_is_in_recovery() THEN  -- behind a balancer of reads, the ID would change from one call to the next
        RAISE read_only_sql_transaction USING MESSAGE = 'a standby does not tell the ID of the queue';
    END IF;
    BEGIN
        v_server := (SELECT c.system_identifier FROM pg_control_system() c);
    EXCEPTION WHEN insufficient_privilege OR undefined_function OR feature_not_supported THEN NULL;
    END;
    BEGIN
        v_timeline := left(pg_walfile_name(pg_current_wal_lsn()), 8);
    EXCEPTION WHEN insufficient_privilege OR undefined_function OR feature_not_supported THEN NULL;
    END;
    RETURN (SELECT left(encode(sha256(convert_to(
                concat_ws(' ', v_server, v_timeline, d.oid, v_installation), 'UTF8')), 'hex'), 16)
            FROM pg_database d WHERE d.datname = current_database());
END
$$;
