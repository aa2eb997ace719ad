-- The lock keeps every id that is being given out away from the look; an INSERT takes it before it takes an id.
LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE;
SELECT setval('{sequence}', greatest((SELECT max({column}) FROM {table}), (SELECT last_value FROM {sequence})))
