-- Says the bot's disclosure in a conversation, if its policy has one and the conversation has not had it (L1). Called in the
-- transaction of the bot's own words, before them. The unique row decides between two deliveries at once: the second waits
-- for the first, and says it only if the first did not commit.
--
-- p_turn: what the words belong to; a history shows the disclosure after the events of this turn
-- p_at: the `created_at` of the words, if nothing is said before them
--
-- Returns the `created_at` of the words: at least 1 ms after the disclosure, also after one that another delivery has just
-- said. Raises what the app's tables raise, and BR002 if `deliver` returns NULL: without the disclosure nothing is said.
-- The app's `deliver` gets no turn, as in say_over_limit.sql.
-- Internal: the caller holds the turn's lock.
CREATE OR REPLACE FUNCTION bridge.disclose(p_turn bigint, p_match uuid, p_bot uuid, p_at timestamptz) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    c_apart CONSTANT interval := '1 millisecond';  -- many apps and their clients keep no less
    v_text  text;
    v_id    uuid;
    v_said  uuid;
    v_at    timestamptz;
BEGIN
    SELECT d.said_at INTO v_at FROM bridge.disclosures d WHERE d.match_id = p_match AND d.bot_id = p_bot;
    IF FOUND THEN
        RETURN greatest(p_at, v_at + c_apart);
    END IF;
    SELECT p.disclosure INTO v_text FROM bridge.policy(p_bot) p;
    IF v_text IS NULL THEN
        RETURN p_at;
    END IF;
    -- The row before the message: what looks at the insert knows the message by its id.
    INSERT INTO bridge.disclosures (match_id, bot_id, message_id, said_at, version, event_id)
    SELECT p_match, p_bot, gen_random_uuid(), p_at, encode(sha256(convert_to(v_text, 'UTF8')), 'hex'), coalesce(max(e.id), 0)
    FROM bridge.events e WHERE e.turn_id = p_turn AND (e.kind = 'message') IS TRUE
    ON CONFLICT (match_id, bot_id) DO NOTHING
    RETURNING message_id INTO v_id;
    IF v_id IS NULL THEN
        SELECT d.said_at INTO v_at FROM bridge.disclosures d WHERE d.match_id = p_match AND d.bot_id = p_bot;
        RETURN greatest(p_at, v_at + c_apart);
    END IF;
    v_said := bridge.say(NULL, v_id, p_match, p_bot, v_text, p_at);
    IF v_said IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'BR002', MESSAGE = 'bridge.deliver returned NULL';
    ELSIF v_said <> v_id THEN
        UPDATE bridge.disclosures SET message_id = v_said WHERE message_id = v_id;
    END IF;
    RETURN p_at + c_apart;
END
$$;
