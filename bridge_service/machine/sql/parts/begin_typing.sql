-- Notes that the bot's indicator goes on at `p_at`. It rings if that is earlier than the next time at which show_due looks
-- anyway (as ring_due.sql).
-- Internal: the caller holds the turn's lock.
CREATE OR REPLACE FUNCTION bridge.begin_typing(p_turn bigint, p_at timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET enable_sort = off SET jit = off AS $$
BEGIN
    -- There is a row already if the turn was typing before and is composed again. show_due may hold it: it looks again soon.
    PERFORM FROM bridge.indicators i WHERE i.turn_id = p_turn;
    IF NOT FOUND THEN
        INSERT INTO bridge.indicators (turn_id, match_id, bot_id, next_at)
        SELECT t.id, t.match_id, t.bot_id, p_at FROM bridge.turns t WHERE t.id = p_turn
        ON CONFLICT (turn_id) DO NOTHING;
    END IF;
    PERFORM FROM bridge.indicators i
    WHERE i.next_at > (SELECT bridge.now()) AND i.next_at <= p_at AND i.turn_id <> p_turn
    ORDER BY i.next_at LIMIT 1;
    IF NOT FOUND THEN
        PERFORM bridge.notify('bridge_due');
    END IF;
END
$$;
