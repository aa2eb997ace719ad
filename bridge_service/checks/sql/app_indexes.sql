-- The columns of the app's tables by which the bridge looks rows up and with which no index begins.
-- Parameters: three lists of the same length: the names of the tables, their oids, the columns.
--
-- An index counts if PostgreSQL may use it for every row: valid, ready, without WHERE, on the column itself. An index on a
-- partitioned table is valid once each partition has its part.
WITH needs AS (
    SELECT * FROM unnest(%s::text[], %s::oid[], %s::text[]) AS n (name, oid, col)),
places AS (
    SELECT n.*, coalesce(t.relid, n.oid) AS place
    FROM needs n LEFT JOIN LATERAL (
        SELECT p.relid FROM pg_partition_tree(n.oid) p JOIN pg_class c ON c.oid = p.relid
        WHERE p.isleaf AND c.relkind = 'r') t ON true)
SELECT p.name, p.col, format('%%I.%%I', n.nspname, c.relname), c.relkind = 'p'
FROM places p
JOIN pg_class c ON c.oid = p.oid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = p.place AND a.attname = p.col AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND NOT EXISTS (
    SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
    WHERE i.indrelid = p.place AND i.indisvalid AND i.indisready AND i.indislive AND i.indpred IS NULL
      AND i.indkey[0] = a.attnum AND m.amname IN ('btree', 'hash'))
GROUP BY p.name, p.col, n.nspname, c.relname, c.relkind
ORDER BY p.name, p.col
