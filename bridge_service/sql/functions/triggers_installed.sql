-- Are the capture triggers in place and firing? If not, notifications of other triggers are captured instead.
CREATE OR REPLACE FUNCTION bridge.triggers_installed() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*) >= 3 FROM pg_catalog.pg_trigger t
    WHERE t.tgname IN ('bridge_before_message', 'bridge_after_message', 'bridge_after_match')
      AND t.tgenabled IN ('O', 'A') AND t.tgparentid = 0
$$;
