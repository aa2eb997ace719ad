-- Whether a message that is still in the table counts as deleted: no bot answers it, and no responder is told of it. An
-- app that marks deleted messages, in a column `deleted_at` for example, replaces this function; `migrate` leaves a
-- replaced one alone. Such an app also calls capture_change.sql when it sets the mark. As persona.sql, it costs nothing
-- until it is replaced.
CREATE OR REPLACE FUNCTION bridge.withdrawn(p_message uuid) RETURNS boolean
LANGUAGE sql STABLE AS $$ SELECT false $$;
