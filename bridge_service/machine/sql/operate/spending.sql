-- What the bots' calls of models came to on their last `p_days` days, today included: one row a bot and day, newest
-- first. Read from the budgets, so its cost does not grow with the number of calls.
--
-- tokens_in, tokens_out: settled ones, and of calls that are not settled what they may cost at most (`unsettled`)
-- cost: by OPENAI_PRICE_INPUT and OPENAI_PRICE_OUTPUT as they are now; NULL: no price is known
-- limited: whether the bot's limit of tokens has stopped a call on that day
CREATE OR REPLACE FUNCTION bridge.spending(p_days integer) RETURNS SETOF jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
BEGIN
    RETURN QUERY
    SELECT jsonb_build_object(
        'bot_id', b.owner_id, 'day', b.day, 'days_ago', d.today - b.day, 'calls', b.calls,
        'tokens_in', b.tokens_in + b.reserved_in, 'tokens_out', b.tokens_out + b.reserved_out,
        'unsettled', b.reserved_in + b.reserved_out, 'limited', b.closed_limit IS NOT NULL,
        'cost', CASE WHEN p.openai_price_input + p.openai_price_output > 0 THEN round((
            ((b.tokens_in + b.reserved_in) * p.openai_price_input
             + (b.tokens_out + b.reserved_out) * p.openai_price_output) / 1000000)::numeric, 6) END)
    FROM bridge.budgets b
    CROSS JOIN LATERAL bridge.policy(b.owner_id) p
    CROSS JOIN LATERAL (SELECT (bridge.now() AT TIME ZONE p.timezone)::date AS today OFFSET 0) d
    -- A zone's date is at most one off from that of UTC.
    WHERE b.day >= (bridge.now() AT TIME ZONE 'UTC')::date - p_days AND b.kind = 'bot' AND b.calls > 0
      AND b.day > d.today - p_days
    ORDER BY b.day DESC, b.owner_id;
END
$$;
