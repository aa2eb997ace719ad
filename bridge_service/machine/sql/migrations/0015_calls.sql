-- Found by: to_regclass('bridge.calls') IS NOT NULL
-- What models cost (M1). A call is one request to a model's server: it is reserved before it is begun, and settled when
-- its cost is known. A call that is never settled keeps its reservation.
CREATE TABLE bridge.calls (
    token        uuid NOT NULL,     -- of the claim (T6)
    number       integer NOT NULL,  -- of the call within its claim, from 1
    turn_id      bigint NOT NULL,   -- no foreign key: the turn may be gone before the call is settled
    match_id     uuid NOT NULL,
    bot_id       uuid NOT NULL,
    person_id    uuid NOT NULL,
    model        text NOT NULL,
    day          date NOT NULL,     -- of the bot's TIMEZONE, when the call was begun
    begun_at     timestamptz NOT NULL,
    ends_at      timestamptz NOT NULL,  -- when its request times out: later it is no longer under way
    reserved_in  bigint NOT NULL CHECK (reserved_in >= 0),
    reserved_out bigint NOT NULL CHECK (reserved_out >= 0),
    tokens_in    bigint CHECK (tokens_in >= 0),  -- NULL until settled
    tokens_out   bigint CHECK (tokens_out >= 0),
    outcome      text NOT NULL DEFAULT 'unknown' CHECK (outcome IN ('unknown', 'answered', 'refused', 'cancelled')),
    PRIMARY KEY (token, number),
    CHECK ((tokens_in IS NULL) = (tokens_out IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX calls_begun ON bridge.calls (begun_at);
CREATE INDEX calls_unsettled ON bridge.calls (bot_id, day) WHERE tokens_in IS NULL;

-- The sums of `calls` for a bot or a person in a day. Whoever reserves or settles locks the bot's row before the person's.
CREATE TABLE bridge.budgets (
    day          date NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('bot', 'person')),
    owner_id     uuid NOT NULL,
    calls        bigint NOT NULL DEFAULT 0,
    tokens_in    bigint NOT NULL DEFAULT 0,  -- of settled calls
    tokens_out   bigint NOT NULL DEFAULT 0,
    reserved_in  bigint NOT NULL DEFAULT 0,  -- of the others
    reserved_out bigint NOT NULL DEFAULT 0,
    closed_limit    bigint,  -- the limit of tokens that refused a call on this day: no other call is begun until it is raised
    PRIMARY KEY (day, kind, owner_id)
) WITH (fillfactor = 50);

-- What a bot said beside its replies. Such a message answers nothing.
CREATE TABLE bridge.notices (
    match_id   uuid NOT NULL,
    bot_id     uuid NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('over_limit')),
    day        date NOT NULL,
    message_id uuid NOT NULL,
    event_id   bigint NOT NULL,  -- the newest event when it was said; it stands after this one in a history
    said_at    timestamptz NOT NULL,
    PRIMARY KEY (match_id, bot_id, kind, day)
);

ALTER TABLE bridge.turns
    ADD COLUMN held_until timestamptz,  -- until when policy ordered the last wait; lateness counts from here
    ADD COLUMN held_limit bigint;       -- the limit that ordered it
CREATE INDEX turns_held ON bridge.turns (bot_id, held, held_limit) WHERE state = 'open' AND held IS NOT NULL;
