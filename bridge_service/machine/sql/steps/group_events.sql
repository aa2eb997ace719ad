-- ungrouped events --> open turns, at most 5,000 events a call, so that no backlog is too large for one. Any number of
-- schedulers may call it at the same time.
--
-- p_after: look only at events above this id. A bound for speed: the sweep passes 0 (C4).
-- p_delay, p_first_*: of a scheduler of the version before, whose environment rules; NULL: each bot's policy
-- p_only: this conversation only, to find what spoils a batch (T2)
--
-- Returns one row an event, in order of capture: `place` is the event's place among those of its kind in its turn.
--
-- If another scheduler holds an event of a conversation, all of its events are left to the next look: a later event taken
-- alone would be answered first. A backlog is cut between conversations, where it can be.
--
-- What is written in a conversation that the bot left ends as `left`, in a finished turn a batch and conversation; to a bot
-- that is off, as `off`. What a human answered in the bot's name ends as `taken_over` (take_over.sql).
--
-- Table statistics lag behind short-lived rows, and the planner then picks quadratic joins (T8). So IN (SELECT unnest ...)
-- is a filter that is hashed, each turn is found by its unique index, and (kind = ...) IS TRUE hides the indexes of one kind.
CREATE OR REPLACE FUNCTION bridge.group_events(
    p_after bigint, p_delay double precision DEFAULT NULL, p_first_min double precision DEFAULT NULL,
    p_first_max double precision DEFAULT NULL, p_first_probability double precision DEFAULT NULL, p_only uuid DEFAULT NULL)
RETURNS TABLE (
    event_id bigint, kind text, match_id uuid, bot_id uuid, turn_id bigint, place bigint,
    opened_at timestamptz, due_at timestamptz, state text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms'
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_seen    bigint[];
    v_taken   bigint[];
    v_matches uuid[];
    v_left    uuid[];
    v_changes boolean;
    v_policy  jsonb;  -- by bot
    v_now     timestamptz;
BEGIN
    SET LOCAL synchronous_commit = off;  -- lost in a crash, it is done again
    -- A statement of its own: joined to the next it reads every index entry that vacuum cannot remove yet (C4).
    IF p_only IS NOT NULL THEN
        v_matches := ARRAY[p_only];
    ELSE
        SELECT array_agg(DISTINCT u.match_id) INTO v_matches
        FROM (SELECT e.match_id FROM bridge.events e
              WHERE e.turn_id IS NULL AND e.error IS NULL AND e.id > p_after ORDER BY e.id LIMIT 5000) u;
        IF v_matches IS NULL THEN
            RETURN;
        END IF;
    END IF;

    IF cardinality(v_matches) <= 100 THEN
        SET LOCAL plan_cache_mode = force_generic_plan;  -- for a few conversations planning takes longer
        SELECT array_agg(s.id) INTO v_seen
        FROM (SELECT e.id FROM unnest(v_matches) AS m (match_id) CROSS JOIN LATERAL bridge.ungrouped_events(m.match_id) e
              ORDER BY min(e.id) OVER (PARTITION BY m.match_id), e.id LIMIT 5000) s;
    ELSE
        SELECT array_agg(s.id) INTO v_seen
        FROM (SELECT w.id
              FROM (SELECT e.id, e.match_id FROM bridge.events e
                    WHERE e.turn_id IS NULL AND e.error IS NULL ORDER BY e.id LIMIT 100000) w
              WHERE (w.match_id IN (SELECT unnest(v_matches))) IS TRUE
              ORDER BY min(w.id) OVER (PARTITION BY w.match_id), w.id LIMIT 5000) s;
    END IF;
    IF v_seen IS NULL THEN
        RETURN;
    END IF;

    -- NO KEY UPDATE: a match's event held by a message's F1 lock is not skipped.
    SELECT array_agg(l.id) INTO v_taken
    FROM (SELECT e.id FROM bridge.events e
          WHERE e.id = ANY (v_seen) AND e.turn_id IS NULL AND e.error IS NULL
          ORDER BY e.id FOR NO KEY UPDATE SKIP LOCKED) l;
    IF cardinality(v_taken) IS DISTINCT FROM cardinality(v_seen) THEN
        SELECT array_agg(e.id) INTO v_taken
        FROM bridge.events e
        WHERE e.id = ANY (v_taken)
          AND e.match_id NOT IN (
              SELECT held.match_id FROM bridge.events held
              WHERE held.id = ANY (v_seen) AND held.id <> ALL (v_taken) AND held.turn_id IS NULL AND held.error IS NULL);
    END IF;
    IF v_taken IS NULL THEN
        RETURN;
    END IF;
    v_now := bridge.now();
    v_policy := bridge.policies(ARRAY(SELECT e.bot_id FROM bridge.events e WHERE e.id = ANY (v_taken)));

    SELECT array_agg(DISTINCT e.match_id) FILTER (WHERE e.kind IN ('message', 'human')), bool_or(e.kind = 'change')
    INTO v_matches, v_changes
    FROM bridge.events e WHERE e.id = ANY (v_taken);

    -- Openers first: the lock order is an opener before a reply.
    INSERT INTO bridge.turns (kind, match_id, bot_id, state, reason, opened_at, due_at, ended_at)
    SELECT 'initiation', e.match_id, e.bot_id,
           CASE WHEN d.drawn THEN 'open' ELSE 'cancelled' END,
           CASE WHEN NOT d.drawn THEN 'not_drawn' END,
           e.captured_at,
           CASE WHEN d.drawn THEN e.captured_at + make_interval(
               secs => d.first_min + (d.first_max - d.first_min) * bridge.draw(e.match_id, 'delay')) END,
           CASE WHEN NOT d.drawn THEN bridge.now() END
    FROM bridge.events e
    CROSS JOIN LATERAL (
        SELECT bridge.draw(e.match_id, 'probability') < coalesce(p_first_probability, p.initiation_probability) AS drawn,
               coalesce(p_first_min, p.initiation_delay_min) AS first_min,
               coalesce(p_first_max, p.initiation_delay_max) AS first_max
        FROM jsonb_to_record(v_policy -> e.bot_id::text) AS p (
            initiation_probability double precision, initiation_delay_min double precision,
            initiation_delay_max double precision)
        OFFSET 0) d
    WHERE e.id = ANY (v_taken) AND (e.kind = 'match') IS TRUE
    ORDER BY e.match_id
    ON CONFLICT (match_id) WHERE kind = 'initiation' DO NOTHING;

    UPDATE bridge.events e
    SET grouped_at = v_now,
        turn_id = (SELECT t.id FROM bridge.turns t WHERE t.kind = 'initiation' AND t.match_id = e.match_id)
    WHERE e.id = ANY (v_taken) AND (e.kind = 'match') IS TRUE AND e.turn_id IS NULL;

    -- I4: any message cancels the opener of its match.
    PERFORM bridge.end_turn(i.id, 'cancelled', 'message')
    FROM (SELECT t.id FROM bridge.turns t
          WHERE bridge.speaks_first(t.kind) AND t.match_id = ANY (v_matches)
            AND t.state IN ('open', 'queued', 'composing', 'typing')
          ORDER BY t.match_id FOR NO KEY UPDATE) i;

    -- H3: a human spoke for the bot. What it could not settle stays ungrouped.
    IF EXISTS (SELECT FROM bridge.events e WHERE e.id = ANY (v_taken) AND (e.kind = 'human') IS TRUE) THEN
        PERFORM bridge.take_over(v_taken, v_policy, v_now);
    END IF;

    v_left := bridge.silent_matches(v_taken, v_matches, v_policy);
    IF v_left IS NOT NULL THEN
        WITH ended AS (
            INSERT INTO bridge.turns (kind, match_id, bot_id, state, reason, opened_at, ended_at)
            SELECT 'reply', e.match_id, (array_agg(e.bot_id ORDER BY e.id DESC))[1], 'cancelled',
                   CASE WHEN bridge.is_left(e.match_id) THEN 'left' ELSE 'off' END, min(e.captured_at), v_now
            FROM bridge.events e
            WHERE e.id = ANY (v_taken) AND (e.kind = 'message' AND e.turn_id IS NULL) IS TRUE AND e.match_id = ANY (v_left)
            GROUP BY e.match_id
            RETURNING id, match_id)
        UPDATE bridge.events e SET grouped_at = v_now, turn_id = n.id
        FROM ended n
        WHERE e.id = ANY (v_taken) AND (e.kind = 'message' AND e.turn_id IS NULL) IS TRUE AND e.match_id = n.match_id;
    END IF;

    -- DO UPDATE, not DO NOTHING: it waits for a claim that holds the waiting turn, and then either joins it or opens a
    -- new one; and it keeps the turn locked until the events stand in it (T2). A group that newer messages have overtaken
    -- too often waits until it is quiet (E3), and with GROUPING_MODE=sliding each one does.
    INSERT INTO bridge.turns AS waiting (kind, match_id, bot_id, state, opened_at, due_at, planned_at)
    SELECT 'reply', g.match_id, g.bot_id, 'open', g.first, d.planned, d.planned
    FROM (SELECT e.match_id, (array_agg(e.bot_id ORDER BY e.id DESC))[1] AS bot_id, min(e.captured_at) AS first,
                 max(e.captured_at) AS last
          FROM bridge.events e
          WHERE e.id = ANY (v_taken) AND (e.kind = 'message' AND e.turn_id IS NULL) IS TRUE
          GROUP BY e.match_id) g
    CROSS JOIN LATERAL (
        SELECT CASE WHEN b.policy ->> 'grouping_mode' = 'sliding'
                    THEN bridge.quiet_at(g.first, g.last, b.delay, (b.policy ->> 'grouping_max')::double precision)
                    ELSE g.first + make_interval(secs => b.delay) END AS planned
        FROM (SELECT v_policy -> g.bot_id::text AS policy, coalesce(
                  p_delay, (v_policy -> g.bot_id::text ->> 'grouping_delay')::double precision) AS delay) b
        OFFSET 0) d
    ORDER BY g.match_id
    ON CONFLICT (match_id) WHERE bridge.is_waiting(kind, state)
    DO UPDATE SET (due_at, planned_at) = (
        SELECT greatest(waiting.due_at, q.quiet_at), greatest(waiting.planned_at, q.quiet_at)
        FROM (SELECT CASE WHEN waiting.overtakes > 0 AND waiting.state = 'open'
                               AND waiting.overtakes >= (b.policy ->> 'max_merges')::integer
                               OR waiting.state = 'open' AND b.policy ->> 'grouping_mode' = 'sliding' THEN bridge.quiet_at(
                         waiting.opened_at,
                         (SELECT max(e.captured_at) FROM bridge.events e
                          WHERE e.id = ANY (v_taken) AND e.match_id = waiting.match_id),
                         coalesce(p_delay, (b.policy ->> 'grouping_delay')::double precision),
                         (b.policy ->> 'grouping_max')::double precision) END AS quiet_at
              FROM (SELECT v_policy -> EXCLUDED.bot_id::text AS policy) b) q);

    UPDATE bridge.events e
    SET grouped_at = v_now,
        turn_id = (SELECT t.id FROM bridge.turns t
                   WHERE t.match_id = e.match_id AND bridge.is_waiting(t.kind, t.state))
    WHERE e.id = ANY (v_taken) AND (e.kind = 'message') IS TRUE AND e.turn_id IS NULL;

    IF v_changes THEN
        PERFORM bridge.group_changes(v_taken, v_now);
    END IF;

    RETURN QUERY
    SELECT p.id, p.kind, p.match_id, p.bot_id, p.turn_id,
           p.place - p.taken + max(p.held) OVER (PARTITION BY p.turn_id, p.kind), t.opened_at, t.due_at, t.state
    FROM (SELECT n.*, CASE WHEN n.place = 1 THEN (
                     SELECT count(*) FROM bridge.events g
                     WHERE g.turn_id = n.turn_id AND (g.kind = n.kind) IS TRUE) END AS held  -- once a turn
          FROM (SELECT e.*, row_number() OVER (PARTITION BY e.turn_id, e.kind ORDER BY e.id) AS place,
                       count(*) OVER (PARTITION BY e.turn_id, e.kind) AS taken
                FROM bridge.events e WHERE e.id = ANY (v_taken) AND e.turn_id IS NOT NULL) n) p
    CROSS JOIN LATERAL (
        SELECT o.opened_at, o.due_at, o.state FROM bridge.turns o WHERE o.id = p.turn_id OFFSET 0) t
    ORDER BY p.id;
END
$$;
