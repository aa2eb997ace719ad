-- Found by: EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('bridge.bots') AND attname = 'second_message' AND NOT attisdropped)
-- What an operator may set for a bot that asks a model. NULL asks the next row, as in 0008. Where a value may be absent
-- 'none', or the number named here, switches it off.
ALTER TABLE bridge.bots
    ADD COLUMN grouping_max           double precision CHECK (grouping_max BETWEEN 0 AND 86400),
    ADD COLUMN second_message         text CHECK (second_message IN ('merge', 'queue')),
    ADD COLUMN timezone               text CHECK (timezone IS NULL OR (timestamptz '2000-01-01 00:00+00' AT TIME ZONE timezone) IS NOT NULL),
    ADD COLUMN persona                text CHECK (length(persona) BETWEEN 1 AND 20000),
    ADD COLUMN openai_model           text CHECK (openai_model ~ '^[A-Za-z0-9_@/.][A-Za-z0-9_./:@+-]{0,199}$'),
    ADD COLUMN openai_fallback_model  text CHECK (openai_fallback_model ~ '^[A-Za-z0-9_@/.][A-Za-z0-9_./:@+-]{0,199}$'),
    ADD COLUMN openai_temperature     double precision CHECK (openai_temperature BETWEEN 0 AND 2 OR openai_temperature = -1),
    ADD COLUMN openai_max_tokens      integer CHECK (openai_max_tokens BETWEEN 1 AND 100000),
    ADD COLUMN openai_history_tokens  integer CHECK (openai_history_tokens BETWEEN 0 AND 1000000),
    ADD COLUMN openai_price_input     double precision CHECK (openai_price_input BETWEEN 0 AND 1000000),
    ADD COLUMN openai_price_output    double precision CHECK (openai_price_output BETWEEN 0 AND 1000000),
    ADD COLUMN limit_calls_person_day integer CHECK (limit_calls_person_day BETWEEN 0 AND 1000000000),  -- 0: none
    ADD COLUMN limit_tokens_bot_day   bigint CHECK (limit_tokens_bot_day BETWEEN 0 AND 1000000000000),  -- 0: none
    ADD COLUMN over_limit             text CHECK (length(over_limit) BETWEEN 1 AND 2000);

-- A function cannot be laid anew with another result.
DROP FUNCTION IF EXISTS bridge.policy(uuid);

ALTER TABLE bridge.turns
    ADD COLUMN overtakes integer NOT NULL DEFAULT 0,  -- calls that newer messages ended, in a chain (E3)
    ADD COLUMN plain     boolean NOT NULL DEFAULT true,  -- the call under way cannot be cancelled (E3)
    ADD COLUMN held      text;  -- why an open turn may not be answered now (Q0); NULL: it may

-- An answer may be silence.
DO $$
DECLARE
    v_constraint name;
BEGIN
    SELECT k.conname INTO v_constraint FROM pg_constraint k
    WHERE k.conrelid = 'bridge.turns'::regclass AND k.contype = 'c'
      AND pg_get_constraintdef(k.oid) LIKE '%answered%reply_message_id IS NOT NULL%answered_at IS NOT NULL%';
    EXECUTE format('ALTER TABLE bridge.turns DROP CONSTRAINT %I', v_constraint);
END
$$;
ALTER TABLE bridge.turns ADD CONSTRAINT turns_answered CHECK (
    state <> 'answered' OR (answered_at IS NOT NULL AND (reply_message_id IS NOT NULL OR reason = 'silence'))) NOT VALID;
