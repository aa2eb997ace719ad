-- BEFORE INSERT on messages. While the match's opener is unfinished, the message holds the match's event row FOR KEY
-- SHARE until it commits; delivering the opener needs that row FOR UPDATE and then looks for messages (F1). Before the
-- insert, so that a message that has to wait for an opener is not in the table yet. No opener, or a finished one: no lock;
-- a dead one is not finished, for the operator may let it try again.
-- The same holds while a follow-up is to come or unfinished in the match (F3); that index is empty while no bot has one.
-- A message in the bot's name that the bridge does not say itself takes the same lock whatever the opener's state, and so
-- no reply is delivered after it (H2).
CREATE OR REPLACE FUNCTION bridge.before_message() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = 0
SET enable_seqscan = off AS $$
BEGIN
    PERFORM FROM bridge.events e
    WHERE e.kind = 'match' AND e.match_id = NEW.match_id
      AND (e.turn_id IS NULL OR EXISTS (
          SELECT FROM bridge.turns t
          WHERE t.id = e.turn_id AND t.state IN ('open', 'queued', 'composing', 'typing', 'dead'))
          OR EXISTS (SELECT FROM bridge.turns f WHERE f.match_id = NEW.match_id AND f.follow_up_at IS NOT NULL)
          OR (e.bot_id = NEW.sender_id AND current_setting('bridge.says', true) IS DISTINCT FROM NEW.match_id::text))
    FOR KEY SHARE OF e;
    RETURN NEW;
END
$$;
