-- Whether turns of this kind answer messages. Such a turn covers `message` events and waits in its conversation's one
-- waiting place; a newer message supersedes it, and its events move on. Turns of any other kind speak first: see
-- speaks_first.sql. A new kind of turns stands in one of these two functions.
--
-- PostgreSQL inlines all three functions of kinds, so a partial index on `kind = 'reply'` serves a condition that calls
-- them. A migration that changes what one of them says makes these indexes anew.
CREATE OR REPLACE FUNCTION bridge.answers(p_kind text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT p_kind = 'reply' $$;
