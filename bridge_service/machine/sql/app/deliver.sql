-- Inserts one reply and returns its id; NULL refuses it, and the turn is cancelled as `refused`. It runs inside the
-- transaction that ends the turn, so reply and end are one commit. `p_turn` is there for an app that keeps its own
-- idempotency key; it is NULL for a notice, which answers no turn, and for each message of a reply but the first. An app
-- with other tables replaces this function; `migrate` leaves a replaced one alone.
--
-- The app's own triggers fire here as they do for the app. They run under the search path by which `migrate` found the
-- app's tables, because they may name tables without a schema; `pg_temp` stands last in it, so a caller cannot slip in
-- a table. Deferred triggers fire here too, so that what they raise is known before the commit. The planner's settings
-- are the app's, not those of the bridge's steps.
CREATE OR REPLACE FUNCTION bridge.deliver(
    p_turn bigint, p_message uuid, p_match uuid, p_bot uuid, p_content text, p_created_at timestamptz)
RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET enable_seqscan FROM CURRENT SET jit FROM CURRENT AS $$
DECLARE
    v_message uuid;
BEGIN
    INSERT INTO {app}.messages (id, match_id, sender_id, content, created_at)
    VALUES (p_message, p_match, p_bot, p_content, p_created_at)
    RETURNING id INTO v_message;
    SET CONSTRAINTS ALL IMMEDIATE;
    RETURN v_message;
END
$$;
