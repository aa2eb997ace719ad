-- Plans the next message of a reply, after the one before it is inserted: due at its own `deliver_at`, and not before the
-- pause between the two has passed since that INSERT (P1). So a late message does not bring the next one with it.
-- Internal: the caller holds the turn's lock. Returns when it is due.
CREATE OR REPLACE FUNCTION bridge.plan_part(p_turn bigint) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_due timestamptz;
BEGIN
    UPDATE bridge.turns t
    SET draft = n.content, part_at = d.due, due_at = d.due, pushes = 0
    FROM bridge.parts o, bridge.parts n,
         LATERAL (SELECT greatest(n.deliver_at, bridge.now() + (n.deliver_at - o.deliver_at)) AS due) d
    WHERE t.id = p_turn AND o.turn_id = t.id AND o.number = t.parts_out AND n.turn_id = t.id AND n.number = t.parts_out + 1
    RETURNING t.due_at INTO v_due;
    IF NOT FOUND THEN  -- an operator emptied bridge.parts
        PERFORM bridge.end_turn(p_turn, 'answered', 'interrupted');
        RETURN NULL;
    END IF;
    PERFORM bridge.ring_due(p_turn, v_due);
    RETURN v_due;
END
$$;
