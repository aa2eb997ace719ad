-- Found by: to_regclass('bridge.turns_hours') IS NOT NULL
-- Quiet hours. A pass asks by the first index whether any bot has them, so an installation without hours pays one probe of an
-- empty index. The second has the turns that wait for a bot's wake-up, in the order in which they came.
CREATE INDEX bots_hours ON bridge.bots (scope) WHERE quiet_hours <> 'none' OR quiet_hours_weekend <> 'none';
CREATE INDEX turns_hours ON bridge.turns (held, held_limit, due_at, opened_at, id)
    WHERE state = 'open' AND held IN ('hours', 'waking');
