-- Found by: to_regclass('bridge.actions') IS NOT NULL
-- What the console shows of the past, and what was done on it.

-- One row a closed minute, made by a scheduler (close_minutes.sql), so that a chart of a day reads 1,440 rows and no turn.
-- No step reads it.
CREATE TABLE bridge.minutes (
    minute       timestamptz PRIMARY KEY,    -- its beginning
    answered     integer NOT NULL,           -- replies
    lateness_p50 double precision,           -- seconds from a reply's planned time to the reply; NULL: none
    lateness_p99 double precision,
    tokens       bigint                      -- of a model's calls that began; NULL: no call is counted here
);

-- What was done on the console. Each row is written in the transaction of the action itself, and none is changed later.
CREATE TABLE bridge.actions (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL,
    who     text NOT NULL,  -- the user's name that came with the password
    address text NOT NULL,
    what    text NOT NULL CHECK (what IN ('retry', 'drop', 'set')),
    on_what text NOT NULL,  -- a turn, or a bot and its new values
    outcome text NOT NULL
);

-- The finished turns of one conversation, for `why` and the console. A turn enters this index once, when it ends.
CREATE INDEX turns_ended_match ON bridge.turns (match_id, ended_at) WHERE ended_at IS NOT NULL;
