-- The one age rule. A message or a match is history, and no bot answers it, if the app dates it more than
-- `ignore_older_days` back (0: never), or not after a message of its conversation that retention has deleted: it may be
-- the deleted one, and an answer would be its second (A3).
--
-- The app's time may be any (C3): NULL and the future are never old, and nothing is added to it. What was written
-- within the last second is not old either, whatever the policy, so the app's usual INSERT does not read the policy.
CREATE OR REPLACE FUNCTION bridge.is_old(p_match uuid, p_created_at timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    v_now timestamptz := bridge.now();
BEGIN
    IF (p_created_at < v_now - interval '1 second') IS NOT TRUE THEN
        RETURN false;
    END IF;
    RETURN EXISTS (SELECT FROM bridge.policy(NULL) p
                   WHERE p.ignore_older_days > 0
                     AND p_created_at < v_now - make_interval(secs => p.ignore_older_days * 86400))
        OR EXISTS (SELECT FROM bridge.forgotten f WHERE f.match_id = p_match AND p_created_at <= f.until);
END
$$;
