-- Found by: to_regclass('bridge.bots') IS NOT NULL
-- Policy: the only place of what an operator may set for the bots. NULL asks the next row: the bot's own, then `default`
-- (the operator's, for all bots), then `environment` (what a scheduler's environment sets, written at its start), then what
-- `policy.sql` has built in. Each column is a variable's name in lower case; its CHECK has the bounds of settings.py.
CREATE TABLE bridge.bots (
    scope                  text NOT NULL CHECK (scope IN ('environment', 'default', 'bot')),
    bot_id                 uuid,
    grouping_delay         double precision CHECK (grouping_delay BETWEEN 0 AND 86400),
    initiation_delay_min   double precision CHECK (initiation_delay_min BETWEEN 0 AND 604800),
    initiation_delay_max   double precision CHECK (initiation_delay_max BETWEEN 0 AND 604800),
    initiation_probability double precision CHECK (initiation_probability BETWEEN 0 AND 1),
    thinking_delay_min     double precision CHECK (thinking_delay_min BETWEEN 0 AND 86400),
    thinking_delay_max     double precision CHECK (thinking_delay_max BETWEEN 0 AND 86400),
    typing_speed_cps       double precision CHECK (typing_speed_cps BETWEEN 0 AND 1000000),
    max_merges             integer CHECK (max_merges BETWEEN 0 AND 100),
    ignore_older_days      double precision CHECK (ignore_older_days BETWEEN 0 AND 36500),
    CHECK (initiation_delay_min <= initiation_delay_max),
    CHECK (thinking_delay_min <= thinking_delay_max),
    CHECK ((scope = 'bot') = (bot_id IS NOT NULL)),
    CONSTRAINT bots_same_age_for_all CHECK (scope <> 'bot' OR ignore_older_days IS NULL),
    CONSTRAINT bots_one_row UNIQUE NULLS NOT DISTINCT (scope, bot_id)
) WITH (fillfactor = 50);
INSERT INTO bridge.bots (scope) VALUES ('environment'), ('default');

-- What retention has deleted, as one time a conversation: the newest `created_at` of its deleted messages. The bridge has
-- no other memory of them, and without it a message that comes a second time would be answered a second time (A3).
CREATE TABLE bridge.forgotten (
    match_id uuid PRIMARY KEY,
    until    timestamptz NOT NULL
) WITH (fillfactor = 80);
