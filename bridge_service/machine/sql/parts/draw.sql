-- A number in [0, 1) that is drawn once for a match and a purpose and never changes: a draw that a crash forgot is
-- drawn again with the same result, so no restart makes a second chance (A3).
CREATE OR REPLACE FUNCTION bridge.draw(p_match uuid, p_purpose text) RETURNS double precision
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ('x' || substr(md5(p_match::text || p_purpose), 1, 8))::bit(32)::bigint / 4294967296.0::double precision
$$;
