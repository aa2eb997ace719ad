-- What a responder is told of a bot or of a person beside the first name: one jsonb object. By default nothing, because
-- what people tell of themselves is sent to a model only if the app says so. An app replaces this function; `migrate`
-- leaves a replaced one alone. As persona.sql, it costs nothing until it is replaced.
CREATE OR REPLACE FUNCTION bridge.profile(p_profile uuid) RETURNS jsonb
LANGUAGE sql STABLE AS $$ SELECT '{}'::jsonb $$;
