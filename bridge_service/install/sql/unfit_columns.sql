-- The columns of the app's tables whose types the bridge cannot use, and the tables that can have no trigger: a sentence
-- each, and the table. Catalogs alone are read, so any role may ask, and no table is locked.
--
-- Parameters: the names of profiles, matches and messages, quoted and qualified; the functions of the adapter that the
-- app replaced, which need what the app says.
WITH RECURSIVE need (place, attribute, wanted, readers, written) AS (VALUES
    -- `trigger`: what each INSERT of the app calls. A column is written by `deliver`.
    (1, 'id',         'uuid',        ARRAY['conversation', 'messages_to_bots'], false),
    (1, 'first_name', 'text',        ARRAY['conversation'],                     false),
    (1, 'is_bot',     'bool',        ARRAY['conversation', 'messages_to_bots'], false),
    (2, 'id',         'uuid',        ARRAY['trigger'],                          false),
    (2, 'user1_id',   'uuid',        ARRAY['trigger'],                          false),
    (2, 'user2_id',   'uuid',        ARRAY['trigger'],                          false),
    (2, 'created_at', 'timestamptz', ARRAY['trigger'],                          false),
    (3, 'id',         'uuid',        ARRAY['trigger'],                          true),
    (3, 'match_id',   'uuid',        ARRAY['trigger'],                          true),
    (3, 'sender_id',  'uuid',        ARRAY['trigger'],                          true),
    (3, 'content',    'text',        ARRAY['history'],                          true),
    (3, 'created_at', 'timestamptz', ARRAY['trigger'],                          true)
), given (tables, replaced) AS (
    SELECT %s::text[], %s::text[]
), based (relation, attribute, wanted, readers, written, attnum, found, base) AS (
    SELECT c.oid, n.attribute, n.wanted::regtype::oid, n.readers, n.written, a.attnum,
           format_type(a.atttypid, a.atttypmod), a.atttypid
    FROM need n CROSS JOIN given g
    JOIN pg_class c ON c.oid = to_regclass(g.tables[n.place])
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = n.attribute AND NOT a.attisdropped
    UNION ALL
    -- A domain is read and written as the type below it.
    SELECT b.relation, b.attribute, b.wanted, b.readers, b.written, b.attnum, b.found, t.typbasetype
    FROM based b JOIN pg_type t ON t.oid = b.base AND t.typtype = 'd'
), judged AS (
    SELECT b.relation, b.attnum, b.attribute, b.found, b.wanted,
           -- Text is read by an explicit cast, which every type has. A condition casts as an assignment does.
           (b.base = b.wanted OR b.wanted = 'text'::regtype OR b.readers <@ g.replaced OR EXISTS (
               SELECT FROM pg_cast k WHERE k.castsource = b.base AND k.casttarget = b.wanted
               AND (k.castcontext = 'i' OR k.castcontext = 'a' AND b.wanted = 'bool'::regtype))) AS readable,
           (b.base = b.wanted OR NOT b.written OR 'deliver' = ANY (g.replaced) OR (
               (t.typcategory = 'S' OR EXISTS (
                   SELECT FROM pg_cast k WHERE k.castsource = b.wanted AND k.casttarget = b.base AND k.castcontext IN ('i', 'a')))
               -- Without loss: a text of a fixed length is cut off in silence, and a date has no time of the day.
               AND NOT (b.wanted = 'text'::regtype AND t.typlen > 0)
               AND b.base <> 'date'::regtype)) AS writable
    FROM based b CROSS JOIN given g JOIN pg_type t ON t.oid = b.base AND t.typtype <> 'd'
)
SELECT 'column ' || j.relation::regclass || '.' || quote_ident(j.attribute) || ' has type ' || j.found || ', needed is '
           || CASE j.wanted WHEN 'timestamptz'::regtype THEN 'timestamptz or timestamp' ELSE format_type(j.wanted, NULL) END,
       j.relation::regclass::text, j.attnum
FROM judged j WHERE NOT (j.readable AND j.writable)
UNION ALL
SELECT c.oid::regclass || ' is a view, needed is a table: a view can have no trigger for each row',
       c.oid::regclass::text, 0
FROM given g CROSS JOIN unnest(g.tables[2:3]) AS named (name) JOIN pg_class c ON c.oid = to_regclass(named.name)
WHERE c.relkind IN ('v', 'm')
ORDER BY 2, 3
