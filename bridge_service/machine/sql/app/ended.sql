-- Whether a match that is still in the table is over, because one side has left it for example: nothing is said in it
-- any more. An app that marks such matches replaces this function; `migrate` leaves a replaced one alone. As
-- persona.sql, it costs nothing until it is replaced.
CREATE OR REPLACE FUNCTION bridge.ended(p_match uuid) RETURNS boolean
LANGUAGE sql STABLE AS $$ SELECT false $$;
