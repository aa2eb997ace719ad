-- The adapter of an app that keeps its bots in `bot_profiles`, marks deleted messages by `messages.is_deleted`, and ends a
-- match by `matches.unmatched_at`. ../FOR_YOUR_APP.md tells when to run it. It may run again at any time.
--
-- bot_profiles(id of the bot's row in profiles, system_prompt, bot_personality, temperature, weekday_start_time,
--   weekday_end_time, weekend_start_time, weekend_end_time, is_active). The hours are those in which the bot answers.
--
-- A lock that takes longer ends the run: the triggers need one on `messages` and one on `bot_profiles`.
SET lock_timeout = '3s';

-- Asked at each claim.
CREATE OR REPLACE FUNCTION bridge.persona(p_bot uuid) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT nullif(concat_ws(E'\n\n', nullif(btrim(b.system_prompt), ''), nullif(btrim(b.bot_personality::text), '')), '')
    FROM public.bot_profiles b WHERE b.id = p_bot
$$;

CREATE OR REPLACE FUNCTION bridge.withdrawn(p_message uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM public.messages m WHERE m.id = p_message AND m.is_deleted)
$$;

-- Unlike a deleted match, one that is only marked keeps its messages.
CREATE OR REPLACE FUNCTION bridge.ended(p_match uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM public.matches m WHERE m.id = p_match AND m.unmatched_at IS NOT NULL)
$$;

-- The quiet hours of a bot that answers from p_start to p_end: the rest of the day. Without a schedule, or with one of 24
-- hours, it never sleeps: 'none', whatever the row `default` says.
CREATE OR REPLACE FUNCTION bridge.quiet_beside(p_start time, p_end time) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(CASE WHEN p_start <> p_end
                         THEN to_char(p_end, 'HH24:MI') || '-' || to_char(p_start, 'HH24:MI') END, 'none')
$$;

-- Writes what bot_profiles says of a bot into the bridge's policy, which is read without a look at the app's tables. A row
-- that is gone takes it back.
-- Raises check_violation if a value is out of the policy's bounds: a temperature above 2.
CREATE OR REPLACE FUNCTION bridge.keep_bot_profile(p_bot uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = 0 AS $$
DECLARE
    b        record;
    v_answer jsonb;
BEGIN
    -- set_bot waits for this lock for 300 ms only; here the app's transaction waits for its turn.
    LOCK TABLE bridge.bots IN SHARE ROW EXCLUSIVE MODE;
    -- `+ '0'` makes 00:00 of 24:00, which is no time of a day.
    SELECT p.id IS NOT NULL AS known, p.temperature, p.is_active,
           p.weekday_start_time::time + interval '0' AS starts, p.weekday_end_time::time + interval '0' AS ends,
           coalesce(p.weekend_start_time, p.weekday_start_time)::time + interval '0' AS weekend_starts,
           coalesce(p.weekend_end_time, p.weekday_end_time)::time + interval '0' AS weekend_ends INTO b
    FROM (VALUES (p_bot)) AS asked (id) LEFT JOIN public.bot_profiles p ON p.id = asked.id;
    IF b.starts IS NULL OR b.ends IS NULL THEN
        b.weekend_starts := NULL;
    ELSIF b.starts > '00:00' AND b.starts < b.ends AND b.weekend_starts > b.weekend_ends THEN
        -- Quiet hours belong to the day on which they begin. Those of this weekend would begin on Saturday and Sunday after
        -- midnight, and those of Monday in the evening: the bot would be awake all night before Monday.
        b.weekend_ends := '23:59';
    ELSIF b.starts > b.ends AND b.weekend_starts > '00:00' AND b.weekend_starts < b.weekend_ends THEN
        b.weekend_ends := '00:00';  -- the same before Saturday
    END IF;
    v_answer := bridge.set_bot(p_bot, jsonb_build_object(
        'openai_temperature', b.temperature,
        'active', b.is_active,
        'quiet_hours', CASE WHEN b.known THEN bridge.quiet_beside(b.starts, b.ends) END,
        'quiet_hours_weekend', CASE WHEN b.known THEN bridge.quiet_beside(b.weekend_starts, b.weekend_ends) END));
    IF v_answer ->> 'outcome' <> 'set' THEN
        RAISE EXCEPTION 'bot_profiles: the bridge refuses bot %: %', p_bot, v_answer ->> 'constraint'
            USING ERRCODE = 'check_violation';
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION bridge.after_bot_profile() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM bridge.keep_bot_profile(CASE TG_OP WHEN 'DELETE' THEN OLD.id ELSE NEW.id END);
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION bridge.quiet_beside(time, time), bridge.keep_bot_profile(uuid), bridge.after_bot_profile() FROM PUBLIC;

-- It tells the bridge at once, so a reply under way is composed anew.
CREATE OR REPLACE TRIGGER messages_is_deleted AFTER UPDATE OF is_deleted ON public.messages FOR EACH ROW
    WHEN (OLD.is_deleted IS DISTINCT FROM NEW.is_deleted) EXECUTE FUNCTION bridge.after_change();

-- At the commit, when the app's transaction holds all of its rows: two that change several bots cannot deadlock over the lock
-- of bridge.bots. (PostgreSQL has no OR REPLACE for it.)
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'public.bot_profiles'::regclass AND tgname = 'bot_profiles_policy') THEN
        CREATE CONSTRAINT TRIGGER bot_profiles_policy
            AFTER INSERT OR DELETE OR UPDATE OF temperature, weekday_start_time, weekday_end_time, weekend_start_time,
                weekend_end_time, is_active ON public.bot_profiles
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION bridge.after_bot_profile();
    END IF;
END
$$;

SELECT bridge.keep_bot_profile(b.id) FROM public.bot_profiles b ORDER BY b.id;

RESET lock_timeout;
