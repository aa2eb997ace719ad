-- Settles a call, by its key and on its own day, whatever became of its turn (M1). The first settlement counts.
--
-- p_tokens_in, p_tokens_out: what it cost; NULL: that is not known, and the call keeps its reservation
--
-- Returns whether it was settled now. Lost in a crash, the call keeps its reservation.
CREATE OR REPLACE FUNCTION bridge.settle_call(
    p_token uuid, p_number integer, p_tokens_in bigint, p_tokens_out bigint, p_outcome text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    c bridge.calls%ROWTYPE;
BEGIN
    SET LOCAL synchronous_commit = off;
    UPDATE bridge.calls
    SET tokens_in = p_tokens_in, tokens_out = p_tokens_out, outcome = p_outcome
    WHERE token = p_token AND number = p_number AND tokens_in IS NULL
    RETURNING * INTO c;
    IF c.tokens_in IS NULL THEN
        RETURN false;
    END IF;
    -- The bot's row before the person's, as in reserve_call.
    PERFORM FROM bridge.budgets b
    WHERE b.day = c.day AND b.kind = 'bot' AND b.owner_id = c.bot_id FOR NO KEY UPDATE;
    UPDATE bridge.budgets
    SET tokens_in = tokens_in + c.tokens_in, tokens_out = tokens_out + c.tokens_out,
        reserved_in = reserved_in - c.reserved_in, reserved_out = reserved_out - c.reserved_out
    WHERE day = c.day AND (kind, owner_id) IN (('bot', c.bot_id), ('person', c.person_id));
    RETURN true;
END
$$;
