-- What the app's tables lack for the bridge: missing columns, types that it cannot use, tables that can have no trigger.
-- (contract's name, column, functions that use it, fault in words or NULL for a missing column)
-- It reads catalogs alone, so any role may run it, and it locks no table.
--
-- Parameters: the names of profiles, matches and messages, quoted and qualified, NULL for a missing table; the functions of
-- the adapter that the app replaced, which need what the app says.
WITH RECURSIVE given (tables, replaced) AS (
    SELECT %s::text[], %s::text[]
), need (number, name, attribute, wanted, readers, written) AS (VALUES
    -- Each INSERT of the app reads what has the reader `trigger`. `deliver` writes what is written.
    (1,  'profiles', 'id',         'uuid',        ARRAY['conversation', 'messages_to_bots'], ARRAY[]::text[]),
    (2,  'profiles', 'first_name', 'text',        ARRAY['conversation'],                     ARRAY[]::text[]),
    (3,  'profiles', 'is_bot',     'bool',        ARRAY['conversation', 'messages_to_bots'], ARRAY[]::text[]),
    (4,  'matches',  'id',         'uuid',        ARRAY['trigger'],                          ARRAY[]::text[]),
    (5,  'matches',  'user1_id',   'uuid',        ARRAY['trigger'],                          ARRAY[]::text[]),
    (6,  'matches',  'user2_id',   'uuid',        ARRAY['trigger'],                          ARRAY[]::text[]),
    (7,  'matches',  'created_at', 'timestamptz', ARRAY['trigger'],                          ARRAY[]::text[]),
    (8,  'messages', 'id',         'uuid',        ARRAY['trigger'],                          ARRAY['deliver']),
    (9,  'messages', 'match_id',   'uuid',        ARRAY['trigger'],                          ARRAY['deliver']),
    (10, 'messages', 'sender_id',  'uuid',        ARRAY['trigger'],                          ARRAY['deliver']),
    (11, 'messages', 'content',    'text',        ARRAY['history'],                          ARRAY['deliver']),
    (12, 'messages', 'created_at', 'timestamptz', ARRAY['trigger'],                          ARRAY['deliver'])
), place (name, relation) AS (
    SELECT p.name, to_regclass(p.found)
    FROM given g CROSS JOIN unnest(ARRAY['profiles', 'matches', 'messages'], g.tables) AS p (name, found)
), based (number, relation, wanted, readers, writers, found, base) AS (
    SELECT n.number, p.relation, n.wanted::regtype::oid, n.readers, n.written, format_type(a.atttypid, a.atttypmod), a.atttypid
    FROM need n JOIN place p ON p.name = n.name
    JOIN pg_attribute a ON a.attrelid = p.relation AND a.attname = n.attribute AND NOT a.attisdropped
    UNION ALL
    -- A domain is read and written as the type below it.
    SELECT b.number, b.relation, b.wanted, b.readers, b.writers, b.found, t.typbasetype
    FROM based b JOIN pg_type t ON t.oid = b.base AND t.typtype = 'd'
), judged AS (
    SELECT b.number, b.relation, b.found, b.wanted,
           -- Text is read by an explicit cast, which every type has. A condition casts as an assignment does.
           (b.base = b.wanted OR b.wanted = 'text'::regtype OR b.readers <@ g.replaced OR EXISTS (
               SELECT FROM pg_cast k WHERE k.castsource = b.base AND k.casttarget = b.wanted
               AND (k.castcontext = 'i' OR k.castcontext = 'a' AND b.wanted = 'bool'::regtype))) AS readable,
           (b.base = b.wanted OR b.writers <@ g.replaced OR (
               (t.typcategory = 'S' OR EXISTS (
                   SELECT FROM pg_cast k WHERE k.castsource = b.wanted AND k.casttarget = b.base AND k.castcontext IN ('i', 'a')))
               -- Without loss: a text of a fixed length is cut off in silence, and a date has no time of the day.
               AND NOT (b.wanted = 'text'::regtype AND t.typlen > 0)
               AND b.base <> 'date'::regtype)) AS writable
    FROM based b CROSS JOIN given g JOIN pg_type t ON t.oid = b.base AND t.typtype <> 'd'
)
SELECT n.name, n.attribute, n.readers || n.written, 'column ' || j.relation || '.' || quote_ident(n.attribute) || ' has type '
           || j.found || ', needed is '
           || CASE j.wanted WHEN 'timestamptz'::regtype THEN 'timestamptz or timestamp' ELSE format_type(j.wanted, NULL) END,
       n.number
FROM judged j JOIN need n ON n.number = j.number WHERE NOT (j.readable AND j.writable)
UNION ALL
SELECT n.name, n.attribute, n.readers || n.written, NULL, n.number
FROM need n JOIN place p ON p.name = n.name CROSS JOIN given g
WHERE NOT n.readers || n.written <@ g.replaced
  AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = p.relation AND a.attname = n.attribute AND NOT a.attisdropped)
UNION ALL
SELECT p.name, NULL, NULL, p.relation || ' is a view, needed is a table: a view can have no trigger for each row', 0
FROM place p JOIN pg_class c ON c.oid = p.relation
WHERE p.name <> 'profiles' AND c.relkind IN ('v', 'm')
ORDER BY 5
