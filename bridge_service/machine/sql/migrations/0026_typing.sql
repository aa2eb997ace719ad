-- Found by: to_regclass('bridge.indicators') IS NOT NULL
-- When the bot begins to type, by the pace of its reply; NULL: its indicator is not shown.
ALTER TABLE bridge.turns ADD COLUMN typing_at timestamptz;

-- The indicators that the bridge has to look at: a row of a turn that types, from `finish` until the bot's row in the app's
-- table is off again. So what a crash left on is known, and nothing else of that table is ever touched.
CREATE TABLE bridge.indicators (
    turn_id  bigint PRIMARY KEY,  -- no foreign key, since retention deletes turns
    match_id uuid NOT NULL,
    bot_id   uuid NOT NULL,
    next_at  timestamptz NOT NULL,  -- when show_due looks at it
    on_since timestamptz            -- NULL: not on yet
);
CREATE INDEX indicators_next_at ON bridge.indicators (next_at);

-- The app's table of indicators, which it need not have. Its name in the functions is the fourth of `laid_for`.
ALTER TABLE bridge.installation ADD COLUMN typing_events regclass;
