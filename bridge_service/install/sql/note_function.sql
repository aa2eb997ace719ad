INSERT INTO bridge.laid_functions (name, digest, source)
SELECT '{name}', '{digest}', md5(string_agg(pg_get_functiondef(oid), '' ORDER BY oid))
FROM pg_proc WHERE pronamespace = 'bridge'::regnamespace AND proname = '{name}'
ON CONFLICT (name) DO UPDATE SET digest = EXCLUDED.digest, source = EXCLUDED.source
