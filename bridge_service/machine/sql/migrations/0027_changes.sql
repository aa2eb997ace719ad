-- Found by: to_regclass('bridge.events_changes') IS NOT NULL
-- Edits and deletions are events of kind `change` (X1). There are few, and a delivery asks for those of its conversation.
CREATE INDEX events_changes ON bridge.events (match_id, turn_id) WHERE kind = 'change';
