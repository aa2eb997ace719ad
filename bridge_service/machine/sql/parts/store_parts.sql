-- Stores the messages of a reply that has more than one, each with the id it will have and when it is planned.
--
-- p_first: when the first one may be delivered
-- p_draft: its text; p_rest: the texts of the others
-- p_pauses: seconds from each message to the next, one for each of `p_rest`
-- Internal: the caller holds the turn's lock, and has stored the draft.
CREATE OR REPLACE FUNCTION bridge.store_parts(
    p_turn bigint, p_first timestamptz, p_draft text, p_rest text[], p_pauses double precision[])
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
BEGIN
    INSERT INTO bridge.parts (turn_id, number, content, deliver_at, message_id)
    SELECT p_turn, 1, p_draft, p_first, t.reply_message_id FROM bridge.turns t WHERE t.id = p_turn
    UNION ALL
    SELECT p_turn, r.number + 1, r.content,
           p_first + make_interval(secs => sum(greatest(coalesce(p_pauses[r.number], 0), 0)) OVER (ORDER BY r.number)),
           gen_random_uuid()
    FROM unnest(p_rest) WITH ORDINALITY AS r (content, number);
END
$$;
