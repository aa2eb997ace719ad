-- Found by: to_regclass('bridge.turns_due_typing') IS NOT NULL
-- The scheduler delivers what is due apart from what it pushes. Each of the two looks for the earliest due time, so each
-- needs an index that holds nothing of the other's.
CREATE INDEX turns_due_composing ON bridge.turns (due_at) WHERE state = 'composing';
CREATE INDEX turns_due_typing ON bridge.turns (due_at) WHERE state = 'typing';
DROP INDEX bridge.turns_due_active;
