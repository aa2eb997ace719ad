-- An INSERT locks the table before it takes an id, so no id is given out between the look and setval.
LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE;
SELECT setval('{sequence}', greatest((SELECT max({column}) FROM {table}), (SELECT last_value FROM {sequence})))
