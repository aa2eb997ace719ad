-- Found by: to_regclass('bridge.processes_seen') IS NOT NULL
-- The console asks every few seconds who lives, and a process that restarts for ever leaves a row each time. With this
-- index a look reads what was seen lately, and none of the rest.
CREATE INDEX processes_seen ON bridge.processes (seen_at);
