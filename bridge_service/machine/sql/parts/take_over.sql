-- A human spoke in a bot's name (H3): its message answers what has a lower id in this conversation, grouped or not, dead turns
-- included, and pauses the bot there for TAKEOVER_PAUSE (H4).
--
-- The human's event gets a finished turn, cancelled as `taken_over`, which takes the ungrouped messages before it along. The
-- active turn ends as `taken_over`; what it holds of later messages moves into the waiting turn. A waiting or dead turn that
-- holds later messages keeps them; its earlier ones move to the human's turn. All of it is one step. It waits for no lock,
-- one conversation at a time: where another session holds one, the human's event stays ungrouped for the next look. So this
-- is no work of `overtake`, and no crash leaves half of it.
--
-- A pause counts from the capture of the human's message. Later ones lengthen it, to at most three times TAKEOVER_PAUSE after
-- the first. It overwrites no other pause.
--
-- p_taken: the events that are being grouped, locked by the caller; p_policy: of their bots, as policies.sql has it
-- Internal: group_events calls it between its openers and its waiting turns. Here the active turn is locked first.
CREATE OR REPLACE FUNCTION bridge.take_over(p_taken bigint[], p_policy jsonb, p_now timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    h         record;
    t         record;
    v_answer  bigint;
    v_waiting bigint;
    v_pause   interval;
BEGIN
    FOR h IN
        SELECT e.match_id, (array_agg(e.bot_id ORDER BY e.id DESC))[1] AS bot_id, max(e.id) AS last_id,
               min(e.captured_at) AS first_at, max(e.captured_at) AS last_at
        FROM bridge.events e WHERE e.id = ANY (p_taken) AND (e.kind = 'human') IS TRUE
        GROUP BY e.match_id ORDER BY e.match_id
    LOOP
        BEGIN
            INSERT INTO bridge.turns (kind, match_id, bot_id, state, reason, opened_at, ended_at)
            VALUES ('reply', h.match_id, h.bot_id, 'cancelled', 'taken_over', h.first_at, p_now)
            RETURNING id INTO v_answer;
            FOR t IN
                SELECT a.id, a.parts_out FROM bridge.turns a
                WHERE a.match_id = h.match_id AND a.state IN ('composing', 'typing') AND bridge.answers(a.kind) IS TRUE
                FOR NO KEY UPDATE NOWAIT
            LOOP
                IF t.parts_out = 0 AND EXISTS (  -- else all of it is answered (P0)
                    SELECT FROM bridge.events e WHERE e.turn_id = t.id AND e.id > h.last_id) THEN
                    PERFORM FROM bridge.turns w WHERE w.match_id = h.match_id AND bridge.is_waiting(w.kind, w.state)
                    FOR NO KEY UPDATE NOWAIT;
                    v_waiting := bridge.open_waiting(h.match_id, h.bot_id);
                    UPDATE bridge.events SET turn_id = v_waiting WHERE turn_id = t.id AND id > h.last_id;
                END IF;
                PERFORM bridge.cancel_turn(t.id, 'taken_over');
            END LOOP;
            FOR t IN
                SELECT w.id FROM bridge.turns w
                WHERE w.match_id = h.match_id AND bridge.is_waiting(w.kind, w.state)
                FOR NO KEY UPDATE NOWAIT
            LOOP
                PERFORM bridge.answer_events(t.id, v_answer, h.last_id);
            END LOOP;
            FOR t IN
                SELECT d.id FROM bridge.turns d
                WHERE d.match_id = h.match_id AND d.ended_at IS NOT NULL AND (d.state = 'dead') IS TRUE
                      AND bridge.answers(d.kind) IS TRUE
                FOR NO KEY UPDATE NOWAIT
            LOOP
                PERFORM bridge.answer_events(t.id, v_answer, h.last_id);
            END LOOP;
            UPDATE bridge.events e SET grouped_at = p_now, turn_id = v_answer
            WHERE e.id = ANY (p_taken) AND (e.match_id = h.match_id AND e.turn_id IS NULL) IS TRUE
              AND (e.kind = 'human' OR (e.kind = 'message' AND e.id < h.last_id));

            v_pause := make_interval(secs => (p_policy -> h.bot_id::text ->> 'takeover_pause')::double precision);
            IF v_pause > interval '0' THEN
                PERFORM FROM bridge.pauses p WHERE p.match_id = h.match_id AND p.cause = 'human' FOR UPDATE NOWAIT;
                INSERT INTO bridge.pauses AS known (match_id, cause, since, turn_id, first_at, until)
                VALUES (h.match_id, 'human', h.first_at, v_answer, h.first_at,
                        least(h.last_at + v_pause, h.first_at + 3 * v_pause))
                ON CONFLICT (match_id, cause) DO UPDATE
                SET turn_id = EXCLUDED.turn_id,
                    (since, first_at, until) = (
                        SELECT CASE WHEN c.goes_on THEN known.since ELSE EXCLUDED.since END,
                               CASE WHEN c.goes_on THEN known.first_at ELSE EXCLUDED.first_at END,
                               CASE WHEN c.goes_on THEN greatest(
                                        known.until, least(h.last_at + v_pause, known.first_at + 3 * v_pause))
                                    ELSE EXCLUDED.until END
                        FROM (SELECT known.until > h.first_at AS goes_on) c);
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
END
$$;
