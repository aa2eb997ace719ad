-- Found by: to_regclass('bridge.turns_one_follow_up') IS NOT NULL
-- Follow-ups (F3): what the bot says once more after a silence is a turn of kind `follow_up`. All of it is NULL while no bot has
-- FOLLOW_UP_AFTER, and the first two indexes are empty.
ALTER TABLE bridge.turns
    ADD COLUMN follow_up_after double precision,  -- of a reply: FOLLOW_UP_AFTER at its claim, in seconds
    ADD COLUMN follow_up_at    timestamptz,       -- when a follow-up is to be made; it makes messages take F1's lock
    ADD COLUMN follows         bigint;            -- of a follow-up: the reply; no foreign key, since retention deletes that turn
CREATE INDEX turns_follow_up_at ON bridge.turns (follow_up_at) WHERE state = 'answered' AND follow_up_at IS NOT NULL;
CREATE INDEX turns_follow_up_match ON bridge.turns (match_id) WHERE follow_up_at IS NOT NULL;
-- Never two in a row: a reply has one follow-up, and only a message of the person makes another reply.
CREATE UNIQUE INDEX turns_one_follow_up ON bridge.turns (follows) WHERE kind = 'follow_up';

-- Two kinds speak first now (speaks_first.sql).
CREATE INDEX turns_speaking_first ON bridge.turns (match_id) WHERE kind IN ('initiation', 'follow_up');
DROP INDEX bridge.turns_due_opener;
CREATE INDEX turns_due_opener ON bridge.turns (due_at) WHERE kind IN ('initiation', 'follow_up') AND state = 'open';
