-- Which limit forbids a bot to begin another call for a person today: its name in `cause`, its number in `ruling`, the
-- day, and until when. All NULL: none does, and a call may begin if its tokens fit (reserve_call.sql).
CREATE OR REPLACE FUNCTION bridge.over_limit(
    p_bot uuid, p_person uuid, OUT cause text, OUT ruling bigint, OUT day date, OUT until timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
DECLARE
    p record;
BEGIN
    SELECT b.limit_calls_person_day, b.limit_tokens_bot_day, b.timezone INTO p FROM bridge.policy(p_bot) b;
    IF p.limit_calls_person_day IS NULL AND p.limit_tokens_bot_day IS NULL THEN
        RETURN;
    END IF;
    day := (bridge.now() AT TIME ZONE p.timezone)::date;
    IF p.limit_calls_person_day <= (SELECT b.calls FROM bridge.budgets b
                                    WHERE b.day = over_limit.day AND b.kind = 'person' AND b.owner_id = p_person) THEN
        cause := 'limit_calls';
        ruling := p.limit_calls_person_day;
    ELSIF p.limit_tokens_bot_day <= (SELECT b.closed_limit FROM bridge.budgets b
                                     WHERE b.day = over_limit.day AND b.kind = 'bot' AND b.owner_id = p_bot) THEN
        cause := 'limit_tokens';
        ruling := p.limit_tokens_bot_day;
    ELSE
        RETURN;
    END IF;
    until := (day + 1)::timestamp AT TIME ZONE p.timezone;  -- a day of a zone may have 23 or 25 hours
END
$$;
