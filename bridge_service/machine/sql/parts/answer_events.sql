-- A human answered what is older than the event `p_last` in a waiting or dead turn. If nothing newer is in it the turn ends
-- as `taken_over`, else the older events move to the human's finished turn `p_answer`.
-- Internal: the caller holds the turn's lock.
CREATE OR REPLACE FUNCTION bridge.answer_events(p_turn bigint, p_answer bigint, p_last bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
BEGIN
    IF EXISTS (SELECT FROM bridge.events e WHERE e.turn_id = p_turn AND e.id > p_last) THEN
        UPDATE bridge.events SET turn_id = p_answer WHERE turn_id = p_turn AND id < p_last;
    ELSE
        PERFORM bridge.cancel_turn(p_turn, 'taken_over');
    END IF;
END
$$;
