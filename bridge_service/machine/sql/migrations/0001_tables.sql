-- Found by: to_regclass('bridge.events') IS NOT NULL
-- The whole system in thirty lines.
--
-- A trigger writes one row into bridge.events inside the app's own transaction: from that commit on, the message cannot
-- be lost, whatever happens to Redis, to the network or to any process. What the bot owes a conversation is one row of
-- bridge.turns, and one rule moves everything:
--
--     when a turn is due, push its next step; every step is idempotent.
--
--   message --> events (turn_id NULL) --group_events--> turns
--
--     open --push_due--> queued --claim--> composing --finish--> typing --deliver_turn--> answered
--       the group is      a push is        a worker holds         a draft waits for        reply and end are
--       still growing     on its way       the token (lease)      its deliver_at           one transaction
--
--   Every arrow is one function of one file in ../functions, called in one autocommit transaction, with its guard inside.
--   A step that died, was doubled, came late or came early finds either the same answer or nothing to do.
--
-- Locks are always taken in this order: events, then turns (an opener before a reply), then the app's rows.

CREATE TABLE bridge.installation (
    one          boolean PRIMARY KEY DEFAULT true CHECK (one),
    installed_at timestamptz NOT NULL DEFAULT clock_timestamp()  -- nothing older is ever answered unless it is replayed
);
INSERT INTO bridge.installation DEFAULT VALUES;

CREATE TABLE bridge.laid_functions (
    name   text PRIMARY KEY,
    digest text NOT NULL,  -- of the file it was laid from
    source text NOT NULL   -- digest of the function as PostgreSQL holds it; another one there means the app replaced it
);

CREATE TABLE bridge.turns (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind             text NOT NULL CHECK (kind IN ('reply', 'initiation')),
    match_id         uuid NOT NULL,
    bot_id           uuid NOT NULL,
    state            text NOT NULL CHECK (state IN ('open', 'queued', 'composing', 'typing', 'answered', 'cancelled', 'dead')),
    due_at           timestamptz,                 -- when to push the next step; NULL once finished
    deliver_at       timestamptz,                 -- when the reply may be delivered; never moves (T5)
    opened_at        timestamptz NOT NULL,        -- capture of the first event
    queued_at        timestamptz,                 -- first push to compose; never moves
    claimed_at       timestamptz,                 -- last claim
    answered_at      timestamptz,
    ended_at         timestamptz,
    pushes           integer NOT NULL DEFAULT 0,  -- of the present step; doubles the interval of the next push
    attempts         integer NOT NULL DEFAULT 0,  -- failed ones; pushes and takeovers are not counted
    takeovers        integer NOT NULL DEFAULT 0,  -- leases that ran out
    merges           integer NOT NULL DEFAULT 0,  -- superseded turns whose events came here, in a chain (D2)
    token            uuid,                        -- the fence of the worker that composes; NULL: anybody may claim (T6)
    covers           bigint[],                    -- events the draft answers, fixed at the claim (T3)
    draft            text,                        -- what the bot will say; erased when the turn ends
    reply_message_id uuid,                        -- chosen with the draft, so that a repeated delivery names the same row
    reason           text,                        -- why cancelled
    last_error       text,
    CHECK ((state IN ('answered', 'cancelled', 'dead')) = (due_at IS NULL)),
    CHECK ((state IN ('answered', 'cancelled', 'dead')) = (ended_at IS NOT NULL)),
    CHECK (draft IS NULL OR state = 'typing'),
    CHECK (state <> 'typing' OR (draft IS NOT NULL AND deliver_at IS NOT NULL AND reply_message_id IS NOT NULL)),
    CHECK (state <> 'answered' OR (reply_message_id IS NOT NULL AND answered_at IS NOT NULL)),
    CHECK (state <> 'cancelled' OR reason IS NOT NULL),
    CHECK (state <> 'dead' OR last_error IS NOT NULL)
);

-- T1: at most one waiting and one active turn a conversation, by index, never by looking first.
CREATE UNIQUE INDEX turns_one_waiting ON bridge.turns (match_id) WHERE kind = 'reply' AND state IN ('open', 'queued');
CREATE UNIQUE INDEX turns_one_active ON bridge.turns (match_id) WHERE state IN ('composing', 'typing');
-- I4: one opener a match, for ever; the finished row is what remembers it.
CREATE UNIQUE INDEX turns_one_initiation ON bridge.turns (match_id) WHERE kind = 'initiation';
-- A turn stands in one of these three at a time, so that no look at what is due passes over a backlog of another state.
CREATE INDEX turns_due_open ON bridge.turns (due_at) WHERE state = 'open';
CREATE INDEX turns_due_queued ON bridge.turns (due_at) WHERE state = 'queued';
CREATE INDEX turns_due_active ON bridge.turns (due_at) WHERE state IN ('composing', 'typing');
CREATE INDEX turns_ended ON bridge.turns (ended_at) WHERE kind = 'reply' AND state IN ('answered', 'cancelled');
CREATE INDEX turns_dead ON bridge.turns (id) WHERE state = 'dead';

CREATE TABLE bridge.events (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('message', 'match')),
    match_id    uuid NOT NULL,
    message_id  uuid,
    bot_id      uuid NOT NULL,
    sender_id   uuid,
    turn_id     bigint REFERENCES bridge.turns,
    created_at  timestamptz,           -- the app's word; shown, never calculated with (C3)
    captured_at timestamptz NOT NULL,  -- ours; every due time is made of it
    error       text,                  -- set aside: grouping it raised this (T2)
    CHECK ((kind = 'message') = (message_id IS NOT NULL))
);

CREATE UNIQUE INDEX events_one_message ON bridge.events (message_id) WHERE kind = 'message';
CREATE UNIQUE INDEX events_one_match ON bridge.events (match_id) WHERE kind = 'match';
CREATE INDEX events_ungrouped ON bridge.events (id) WHERE turn_id IS NULL AND error IS NULL;
CREATE INDEX events_ungrouped_match ON bridge.events (match_id, id) WHERE turn_id IS NULL AND error IS NULL;
CREATE INDEX events_turn ON bridge.events (turn_id) WHERE turn_id IS NOT NULL;

-- Both tables live on short-lived rows: vacuum after a few thousand of them, not after a fifth of the history.
ALTER TABLE bridge.turns SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, fillfactor = 80);
ALTER TABLE bridge.events SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, fillfactor = 80);

-- A second wall behind the missing grants: no policy means that nobody but the owner reads a row.
ALTER TABLE bridge.installation ENABLE ROW LEVEL SECURITY;
ALTER TABLE bridge.laid_functions ENABLE ROW LEVEL SECURITY;
ALTER TABLE bridge.turns ENABLE ROW LEVEL SECURITY;
ALTER TABLE bridge.events ENABLE ROW LEVEL SECURITY;
