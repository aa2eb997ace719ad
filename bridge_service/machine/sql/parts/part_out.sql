-- Notes that the next message of a reply is delivered in this transaction, and returns its id. From here on the turn can
-- only end as `answered` (P0). It is called before the INSERT, like the end of a turn (D4).
-- Internal: the caller holds the turn's lock, and inserts the message.
CREATE OR REPLACE FUNCTION bridge.part_out(p_turn bigint) RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_number  integer;
    v_message uuid;
BEGIN
    UPDATE bridge.turns SET parts_out = parts_out + 1 WHERE id = p_turn RETURNING parts_out INTO v_number;
    UPDATE bridge.parts p SET delivered_at = bridge.now()
    WHERE p.turn_id = p_turn AND p.number = v_number
    RETURNING p.message_id INTO v_message;
    RETURN coalesce(v_message, gen_random_uuid());  -- an operator may have emptied bridge.parts
END
$$;
