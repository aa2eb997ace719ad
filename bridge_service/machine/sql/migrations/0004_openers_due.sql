-- Found by: to_regclass('bridge.turns_due_opener') IS NOT NULL
-- Every match leaves its opener for ever, and thousands of groups may be open: the scheduler, which looks after each pass
-- for the next opener, passes over neither. Only an open opener is written here.
CREATE INDEX turns_due_opener ON bridge.turns (due_at) WHERE kind = 'initiation' AND state = 'open';
