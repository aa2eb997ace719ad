-- Found by: EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('bridge.bots') AND attname = 'takeover_pause' AND NOT attisdropped)
-- What an operator may set of a bot's manners. NULL asks the next row, as in 0008. Where a value may be absent 'none', 0 or
-- an empty list switches it off.
ALTER TABLE bridge.bots
    ADD COLUMN grouping_mode       text CHECK (grouping_mode IN ('fixed', 'sliding')),
    ADD COLUMN reply_parts         integer CHECK (reply_parts BETWEEN 1 AND 10),
    ADD COLUMN part_pause_min      double precision CHECK (part_pause_min BETWEEN 0 AND 60),
    ADD COLUMN part_pause_max      double precision CHECK (part_pause_max BETWEEN 0 AND 60),
    ADD COLUMN bot_typing          boolean,
    ADD COLUMN takeover_pause      double precision CHECK (takeover_pause BETWEEN 0 AND 604800),
    -- Two different times, so a bot is awake at some time of every day.
    ADD COLUMN quiet_hours         text CHECK (quiet_hours = 'none'
        OR (quiet_hours ~ '^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$' AND left(quiet_hours, 5) <> right(quiet_hours, 5))),
    ADD COLUMN quiet_hours_weekend text CHECK (quiet_hours_weekend = 'none'
        OR (quiet_hours_weekend ~ '^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$'
            AND left(quiet_hours_weekend, 5) <> right(quiet_hours_weekend, 5))),
    ADD COLUMN quiet_spread        double precision CHECK (quiet_spread BETWEEN 0 AND 86400),
    ADD COLUMN disclosure          text CHECK (length(disclosure) BETWEEN 1 AND 2000),
    ADD COLUMN follow_up_after     double precision CHECK (follow_up_after BETWEEN 3600 AND 2592000 OR follow_up_after = 0),
    ADD COLUMN limit_replies_hour  integer CHECK (limit_replies_hour BETWEEN 0 AND 100000),  -- 0: none
    ADD COLUMN active              boolean,  -- false: messages are captured and not answered
    ADD COLUMN distress_words      text[] CHECK (cardinality(distress_words) <= 200 AND array_position(distress_words, NULL) IS NULL
        AND array_position(distress_words, '') IS NULL),
    ADD COLUMN distress_text       text CHECK (length(distress_text) BETWEEN 1 AND 2000),
    ADD CONSTRAINT bots_part_pause CHECK (part_pause_min <= part_pause_max);

-- A function cannot be laid anew with another result.
DROP FUNCTION IF EXISTS bridge.policy(uuid);
