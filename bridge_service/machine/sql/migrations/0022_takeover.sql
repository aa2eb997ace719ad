-- Found by: to_regclass('bridge.events_one_human') IS NOT NULL
-- A human speaks for a bot: one event a message, as with a person's.
CREATE UNIQUE INDEX events_one_human ON bridge.events (message_id) WHERE kind = 'human';

-- A pause is of a match or of a bot, and may have an end.
ALTER TABLE bridge.pauses
    DROP CONSTRAINT pauses_pkey,
    DROP CONSTRAINT pauses_cause_check,
    ALTER COLUMN match_id DROP NOT NULL,
    ADD COLUMN id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ADD COLUMN bot_id   uuid,         -- in all conversations of this bot; then match_id is NULL
    ADD COLUMN until    timestamptz,  -- NULL: until `resume`
    ADD COLUMN first_at timestamptz,  -- of `human`: when the first of its messages was captured
    ADD CONSTRAINT pauses_match UNIQUE (match_id, cause),
    ADD CONSTRAINT pauses_bot UNIQUE (bot_id, cause),
    -- left: its responder ended the conversation; human: a human wrote for the bot; paused: an operator or the app asked
    ADD CONSTRAINT pauses_cause CHECK (cause = 'left' AND until IS NULL
                                       OR cause = 'human' AND num_nulls(until, first_at) = 0
                                       OR cause = 'paused'),
    ADD CONSTRAINT pauses_subject CHECK (num_nonnulls(match_id, bot_id) = 1 AND (bot_id IS NULL OR cause = 'paused'));
