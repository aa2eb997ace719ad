-- Whether the reply `p_turn` may make way for the conversation's newer message. The one place of this question: `overtake`,
-- a claim and a delivery ask here, so a cause that keeps a conversation from being answered is added here and nowhere else.
--
-- p_waiting: the waiting turn; NULL while the newer message has none
-- p_policy: of the bot, as policies.sql has it
--
-- A draft counts in `merges`, a call that is ended counts in `overtakes`, each up to MAX_MERGES (E3). A turn that holds
-- neither counts nowhere; its last attempt is its own, so that the waiting turn does not die with it. The rest of a reply
-- that was begun always makes way (P2).
-- No reply goes into a turn that is held, nor where no further call can be paid: it would be said much later (E5).
CREATE OR REPLACE FUNCTION bridge.may_supersede(p_turn bigint, p_waiting bigint, p_policy jsonb) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_most integer := (p_policy ->> 'max_merges')::integer;
BEGIN
    RETURN p_policy ->> 'second_message' = 'merge'
       AND (SELECT CASE WHEN t.state = 'typing' THEN t.merges < v_most OR t.parts_out > 0
                        WHEN t.attempts + 1 >= bridge.max_attempts() THEN false
                        WHEN t.token IS NULL THEN v_most > 0
                        ELSE NOT t.plain AND t.overtakes < v_most END
            FROM bridge.turns t WHERE t.id = p_turn)
       AND (SELECT w.held FROM bridge.turns w WHERE w.id = p_waiting) IS NULL
       AND (SELECT n.cause FROM bridge.not_now(p_turn) n) IS NULL;
END
$$;
