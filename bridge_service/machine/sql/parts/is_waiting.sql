-- Whether a turn is its conversation's waiting turn. There is at most one, by the index `turns_one_waiting` (T1): it
-- takes what is grouped, and goes on when the active turn ends. See answers.sql.
CREATE OR REPLACE FUNCTION bridge.is_waiting(p_kind text, p_state text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT bridge.answers(p_kind) AND p_state IN ('open', 'queued') $$;
