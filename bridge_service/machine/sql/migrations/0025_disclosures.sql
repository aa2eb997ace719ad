-- Found by: to_regclass('bridge.disclosures') IS NOT NULL
-- What a bot has to say by law (L1): its disclosure, once in a conversation. A row lives as long as its match.
CREATE TABLE bridge.disclosures (
    match_id   uuid NOT NULL,
    bot_id     uuid NOT NULL,
    message_id uuid NOT NULL UNIQUE,
    said_at    timestamptz NOT NULL,  -- its `created_at` in the app; later words of the bot are stamped after it
    version    text NOT NULL,         -- SHA-256 of the text
    event_id   bigint NOT NULL,       -- as in notices
    PRIMARY KEY (match_id, bot_id)
);

-- Since when each row of bridge.bots says something of DISCLOSURE, for `verify`; also of rows that say nothing any more.
CREATE TABLE bridge.disclosing (
    scope  text NOT NULL,
    bot_id uuid,
    says   boolean,  -- true: a text; false: 'none'; NULL: the row asks the next one
    since  timestamptz NOT NULL,
    CONSTRAINT disclosing_one_row UNIQUE NULLS NOT DISTINCT (scope, bot_id)
);
INSERT INTO bridge.disclosing (scope, bot_id, says, since)
SELECT b.scope, b.bot_id, b.disclosure <> 'none', clock_timestamp() FROM bridge.bots b WHERE b.disclosure IS NOT NULL;

-- The body only holds the place, as in 0020.
CREATE FUNCTION bridge.note_disclosing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
-- At the commit: set_bot deletes a row and inserts it again.
CREATE CONSTRAINT TRIGGER note_disclosing AFTER INSERT OR UPDATE OR DELETE ON bridge.bots
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION bridge.note_disclosing();

-- Empty unless a bot has a disclosure: each delivery looks here.
CREATE INDEX bots_disclosing ON bridge.bots (scope) WHERE disclosure <> 'none';

-- Conversations in which a person wrote one of the bot's `distress_words`.
CREATE TABLE bridge.distress (
    match_id uuid NOT NULL,
    bot_id   uuid NOT NULL,
    first_at timestamptz NOT NULL,  -- capture of the first such message
    last_at  timestamptz NOT NULL,  -- capture of the newest one
    event_id bigint NOT NULL,       -- of the newest one
    token    uuid NOT NULL,         -- of the claim that found it
    PRIMARY KEY (match_id, bot_id)
);
ALTER TABLE bridge.turns ADD COLUMN distress bigint;  -- the newest event it covers that has one of these words

ALTER TABLE bridge.notices
    DROP CONSTRAINT notices_kind_check,
    ADD CONSTRAINT notices_kind_check CHECK (kind IN ('over_limit', 'distress'));
