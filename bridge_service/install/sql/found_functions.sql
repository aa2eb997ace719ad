-- The functions of the schema, by name: their digest, the digest in their comment, their body, and whether PUBLIC may call
-- them, as after a restore without privileges.
SELECT p.proname::text,
       md5(string_agg(pg_get_functiondef(p.oid), '' ORDER BY p.oid)),
       max(substr(obj_description(p.oid, 'pg_proc'), 6)),
       string_agg(p.prosrc, '' ORDER BY p.oid),
       bool_or(p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee = 0))
FROM pg_proc p
WHERE p.pronamespace = to_regnamespace('bridge') AND p.prokind = 'f'
GROUP BY 1
