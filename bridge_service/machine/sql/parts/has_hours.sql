-- Whether any row of policy sets quiet hours. (As is_left.sql: no SET and no rights of its own. The condition is that of the
-- index bots_hours.)
CREATE OR REPLACE FUNCTION bridge.has_hours() RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM bridge.bots b WHERE b.quiet_hours <> 'none' OR b.quiet_hours_weekend <> 'none')
$$;
