-- How a turn ended of which a message was said and the rest was not (P0), in the form the steps return.
--
-- Returns {outcome: interrupted, reason, said: messages, withheld: messages, merges: 0, ...}.
CREATE OR REPLACE FUNCTION bridge.interruption(p_turn bigint) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
BEGIN
    RETURN (SELECT jsonb_build_object(
                'outcome', 'interrupted', 'reason', t.reason, 'kind', t.kind, 'match_id', t.match_id,
                'message_id', t.reply_message_id, 'said', t.parts_out, 'withheld', t.parts - t.parts_out, 'merges', 0,
                'next_turn', bridge.next_turn(t.match_id))
            FROM bridge.turns t WHERE t.id = p_turn);
END
$$;
