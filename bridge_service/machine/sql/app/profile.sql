-- What a responder is told of a bot or of a person beside the first name: one jsonb object. By default nothing, for what
-- people tell of themselves is not sent to a model unless the app says so. An app replaces this function; `migrate` leaves a
-- replaced one alone. As persona.sql, it costs nothing until it is replaced.
CREATE OR REPLACE FUNCTION bridge.profile(p_profile uuid) RETURNS jsonb
LANGUAGE sql STABLE AS $$ SELECT '{}'::jsonb $$;
