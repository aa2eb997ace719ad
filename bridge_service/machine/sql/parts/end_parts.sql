-- Erases the texts of a reply of several messages. Of one that was interrupted, the conversation's waiting turn inherits
-- them: its responder is told what was said and what was not (P3). Of one of which nothing was said no row stays.
-- Internal: end_turn calls it, after the turn has ended.
CREATE OR REPLACE FUNCTION bridge.end_parts(p_turn bigint, p_match uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_said     text[];
    v_withheld text[];
BEGIN
    SELECT array_agg(p.content ORDER BY p.number) FILTER (WHERE p.delivered_at IS NOT NULL),
           array_agg(p.content ORDER BY p.number) FILTER (WHERE p.delivered_at IS NULL)
    INTO v_said, v_withheld
    FROM bridge.parts p WHERE p.turn_id = p_turn AND p.content IS NOT NULL;
    IF v_said IS NULL THEN
        DELETE FROM bridge.parts p WHERE p.turn_id = p_turn AND p.delivered_at IS NULL;
        RETURN;
    END IF;
    UPDATE bridge.parts SET content = NULL WHERE turn_id = p_turn;
    IF v_withheld IS NOT NULL THEN
        UPDATE bridge.turns w SET said = w.said || v_said, withheld = w.withheld || v_withheld
        WHERE w.match_id = p_match AND bridge.is_waiting(w.kind, w.state) AND w.id <> p_turn;
    END IF;
END
$$;
