-- The columns of `messages` by which an INSERT of the five columns that `bridge.deliver` fills fails, or may fail.
-- Parameters: the oid of `messages`, and the five columns.
--
-- fault: 'right' (its default uses what the owner of `deliver` may not use), 'empty' (takes no NULL and has no default),
--   'partition' (only a partition takes no NULL), 'default' (takes no NULL, and the default reads the session),
--   'identity', 'generated' or 'virtual' (PostgreSQL alone gives the value).
-- triggers: the app's BEFORE INSERT triggers that may fill it.
-- missing: the right that is missing, as GRANT has it; owner: of `deliver`, quoted.
WITH RECURSIVE app (oid, filled) AS (SELECT %s::oid, %s::text[]),
places AS (
    SELECT oid, false AS partition FROM app
    UNION ALL
    SELECT t.relid, true FROM app CROSS JOIN pg_partition_tree(app.oid) t WHERE t.isleaf AND t.relid <> app.oid),
columns AS (
    SELECT a.*, p.partition FROM places p JOIN pg_attribute a ON a.attrelid = p.oid
    WHERE a.attnum > 0 AND NOT a.attisdropped),
types (attrelid, attnum, oid) AS (
    SELECT attrelid, attnum, atttypid FROM columns
    UNION
    SELECT u.attrelid, u.attnum, t.typbasetype FROM types u JOIN pg_type t ON t.oid = u.oid AND t.typtype = 'd'),
checks AS (
    SELECT k.conrelid, k.contypid, pg_get_constraintdef(k.oid) AS definition FROM pg_constraint k
    WHERE (k.conrelid IN (SELECT oid FROM places) OR k.contypid IN (SELECT oid FROM types))
      AND k.contype = 'c' AND pg_get_constraintdef(k.oid) NOT LIKE '%% NOT ENFORCED'),
strict AS (
    SELECT c.attname, c.partition FROM columns c
    WHERE c.attnotnull
       OR EXISTS (SELECT FROM checks k WHERE k.conrelid = c.attrelid
                  AND starts_with(k.definition, format('CHECK ((%%I IS NOT NULL))', c.attname)))
       OR EXISTS (SELECT FROM types u JOIN pg_type t ON t.oid = u.oid
                  WHERE (u.attrelid, u.attnum) = (c.attrelid, c.attnum)
                    AND (t.typnotnull OR EXISTS (SELECT FROM checks k WHERE k.contypid = t.oid
                         AND starts_with(k.definition, 'CHECK ((VALUE IS NOT NULL))'))))),
deliver AS (
    SELECT max(p.proowner::bigint)::oid AS owner FROM pg_proc p
    WHERE p.pronamespace = to_regnamespace('bridge') AND p.proname = 'deliver'),
rights AS (
    SELECT d.adnum, string_agg(CASE WHEN s.oid IS NULL
                                    THEN format('EXECUTE ON FUNCTION %%s', f.oid::regprocedure)
                                    ELSE format('USAGE ON SEQUENCE %%s', s.oid::regclass) END, ', ') AS missing
    FROM app JOIN pg_attrdef d ON d.adrelid = app.oid
    JOIN pg_depend u ON u.classid = 'pg_attrdef'::regclass AND u.objid = d.oid
    CROSS JOIN deliver o
    LEFT JOIN pg_class s ON u.refclassid = 'pg_class'::regclass AND s.oid = u.refobjid AND s.relkind = 'S'
        AND NOT has_sequence_privilege(o.owner, s.oid, 'USAGE, UPDATE')
    LEFT JOIN pg_proc f ON u.refclassid = 'pg_proc'::regclass AND f.oid = u.refobjid
        AND NOT has_function_privilege(o.owner, f.oid, 'EXECUTE')
    WHERE s.oid IS NOT NULL OR f.oid IS NOT NULL
    GROUP BY d.adnum),
-- The defaults are those of the table that the INSERT names, also for a row that goes to a partition.
faults AS (
    SELECT c.attname, r.missing, CASE
               WHEN c.attname = ANY (app.filled) THEN CASE WHEN c.attgenerated = 'v' THEN 'virtual'
                                                           WHEN c.attgenerated <> '' THEN 'generated'
                                                           WHEN c.attidentity = 'a' THEN 'identity' END
               WHEN r.missing IS NOT NULL THEN 'right'
               WHEN s.always IS NULL OR c.attidentity <> '' OR c.attgenerated <> '' THEN NULL
               WHEN d.oid IS NULL AND t.typdefaultbin IS NULL THEN CASE WHEN s.always THEN 'empty' ELSE 'partition' END
               WHEN pg_get_expr(d.adbin, d.adrelid) ~ '\mcurrent_setting\M' OR EXISTS (
                   SELECT FROM pg_depend p JOIN pg_proc f ON f.oid = p.refobjid
                   WHERE p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_proc'::regclass
                     AND (f.provolatile = 's' OR f.prosrc ~ '\mcurrent_setting\M')) THEN 'default'
           END AS fault
    FROM app JOIN columns c ON c.attrelid = app.oid
    JOIN pg_type t ON t.oid = c.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = c.attrelid AND d.adnum = c.attnum
    LEFT JOIN rights r ON r.adnum = c.attnum
    CROSS JOIN LATERAL (SELECT bool_or(NOT s.partition) AS always FROM strict s WHERE s.attname = c.attname) s)
SELECT format('%%I', f.attname), f.fault, ARRAY(
           SELECT DISTINCT g.tgname::text
           FROM places p JOIN pg_trigger g ON g.tgrelid = p.oid
           JOIN pg_proc u ON u.oid = g.tgfoid JOIN pg_language l ON l.oid = u.prolang
           WHERE NOT g.tgisinternal AND g.tgenabled IN ('O', 'A') AND g.tgtype & 7 = 7  -- BEFORE INSERT, for each row
             AND u.pronamespace IS DISTINCT FROM to_regnamespace('bridge')
             -- A PL/pgSQL function may change a column that it names, change NEW as a whole, or insert elsewhere instead.
             AND (l.lanname <> 'plpgsql' OR position(lower(f.attname) IN lower(u.prosrc)) > 0
                  OR u.prosrc ~* '\mNEW\s*:?=|\mINTO\s+(STRICT\s+)?NEW\M|\mRETURN\s+(?!NEW\s*;|OLD\s*;)|\mINSERT\s+INTO\M')
           ORDER BY 1), f.missing, (SELECT quote_ident(pg_get_userbyid(d.owner)) FROM deliver d)
FROM faults f
WHERE f.fault IS NOT NULL
ORDER BY f.attname
