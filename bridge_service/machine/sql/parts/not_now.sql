-- Why a turn's conversation may not be answered now (Q0): the name of the cause, the number that ruled, the day it is counted
-- for, if it is counted by days, and until when; at most a day away. All NULL: it may. The one place of this question: a
-- claim, a delivery, `overtake` and plan_held ask here, so a new cause is added here and nowhere else.
CREATE OR REPLACE FUNCTION bridge.not_now(
    p_turn bigint, OUT cause text, OUT ruling bigint, OUT day date, OUT until timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_bot   uuid;
    v_match uuid;
BEGIN
    SELECT t.bot_id, t.match_id INTO v_bot, v_match FROM bridge.turns t WHERE t.id = p_turn;
    until := bridge.paused_until(v_match, v_bot);
    IF until IS NOT NULL THEN
        cause := 'paused';
        until := least(until, bridge.now() + interval '1 day');  -- a pause may have no end
        RETURN;
    END IF;
    SELECT r.cause, r.ruling, r.until INTO cause, ruling, until FROM bridge.resting(p_turn) r;
    IF cause IS NULL THEN
        SELECT o.cause, o.ruling, o.day, o.until INTO cause, ruling, day, until
        FROM bridge.over_limit(v_bot, bridge.person_of(p_turn)) o;
    END IF;
END
$$;
