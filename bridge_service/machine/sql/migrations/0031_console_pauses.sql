-- Found by: to_regclass('bridge.pauses_until') IS NOT NULL
-- What the console shows of pauses, and that it sets them.
ALTER TABLE bridge.actions
    DROP CONSTRAINT actions_what_check,
    ADD CONSTRAINT actions_what_check CHECK (what IN ('retry', 'drop', 'set', 'pause', 'resume')) NOT VALID;
ALTER TABLE bridge.pauses ADD COLUMN who text;  -- the user's name that was sent to the console; NULL: another way

-- The pauses that last, without those that are over: the console counts them every few seconds.
CREATE INDEX pauses_until ON bridge.pauses (coalesce(until, 'infinity')) WHERE cause <> 'left';
