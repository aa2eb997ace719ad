-- Notes what only a process can know, for `report`.
--
-- p_kind: name of the signal in bridge_service/telemetry/signals
-- p_times: how often it happened since it was last noted
-- p_age: seconds since the first of these
CREATE OR REPLACE FUNCTION bridge.note_incident(p_kind text, p_role text, p_times integer, p_age double precision)
RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
    INSERT INTO bridge.incidents (kind, role, happened_at, times)
    VALUES (p_kind, p_role, bridge.now() - make_interval(secs => p_age), p_times)
$$;
