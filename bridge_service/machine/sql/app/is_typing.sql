-- Whether a person types now: the person's row is on, and was renewed within 5 s. An app that lost sight of a person leaves
-- the row on.
-- An app with another table replaces this function, show_typing and has_typing; `migrate` leaves replaced ones alone.
CREATE OR REPLACE FUNCTION bridge.is_typing(p_match uuid, p_person uuid) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
BEGIN
    IF NOT bridge.has_typing() THEN  -- a statement apart: the next one is not read then
        RETURN false;
    END IF;
    RETURN EXISTS (
        SELECT FROM {app}.typing_events e
        WHERE e.match_id = p_match AND e.user_id = p_person AND e.is_typing
          AND e.updated_at > bridge.now() - interval '5 seconds');
END
$$;
