-- Found by: to_regclass('bridge.pauses') IS NOT NULL
-- Why a bot does not answer in a match, a row for each cause. A row lives as long as its match, until `resume` deletes it.
CREATE TABLE bridge.pauses (
    match_id uuid NOT NULL,
    cause    text NOT NULL CHECK (cause IN ('left')),  -- left: its responder ended the conversation
    since    timestamptz NOT NULL,
    turn_id  bigint,  -- the turn that set it; no foreign key, since retention deletes that turn
    PRIMARY KEY (match_id, cause)
);

-- What the draft does beside its text. A draft of '' says nothing.
ALTER TABLE bridge.turns ADD COLUMN action text NOT NULL DEFAULT 'say';
ALTER TABLE bridge.turns ADD CONSTRAINT turns_action CHECK (action IN ('say', 'silence', 'leave')) NOT VALID;
