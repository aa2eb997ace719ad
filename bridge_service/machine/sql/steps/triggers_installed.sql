-- Are the capture triggers in place and firing, on the tables that the installation is bound to? If not, notifications
-- of other triggers are captured instead.
CREATE OR REPLACE FUNCTION bridge.triggers_installed() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*) >= 3
    FROM bridge.installation i
    JOIN pg_catalog.pg_trigger t ON t.tgrelid = CASE t.tgname WHEN 'bridge_after_match' THEN i.matches ELSE i.messages END
    WHERE t.tgname IN ('bridge_before_message', 'bridge_after_message', 'bridge_after_match')
      AND t.tgenabled IN ('O', 'A') AND t.tgparentid = 0
$$;
