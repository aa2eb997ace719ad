-- Found by: to_regclass('bridge.events_changes') IS NOT NULL
-- Edits and deletions are events of kind `change` (X1). There are few, so the sweep finds them here and reads no message.
CREATE INDEX events_changes ON bridge.events (turn_id) WHERE kind = 'change';
