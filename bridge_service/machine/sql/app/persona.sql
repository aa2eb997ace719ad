-- Who the bot is, in the words that a model is told; NULL: as the built-in persona. What an operator sets in
-- bridge.bots comes before it. An app that keeps personas replaces this function; `migrate` leaves a replaced one
-- alone. It has no SET and not its owner's rights, so PostgreSQL inlines it, and it costs nothing until it is replaced.
CREATE OR REPLACE FUNCTION bridge.persona(p_bot uuid) RETURNS text
LANGUAGE sql STABLE AS $$ SELECT NULL::text $$;
