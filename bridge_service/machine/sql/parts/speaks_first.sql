-- Whether turns of this kind speak first: openers and follow-ups. Such a turn covers no message, any message of its match
-- cancels it, and its delivery locks the match's event and looks for messages (F1): an opener for any message, a follow-up
-- for anything after the reply that it follows (went_on.sql). Retention keeps it while its match lives (A3). See answers.sql.
CREATE OR REPLACE FUNCTION bridge.speaks_first(p_kind text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT p_kind IN ('initiation', 'follow_up') $$;
