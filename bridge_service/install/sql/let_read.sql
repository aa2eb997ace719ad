-- Of turns, parts and calls only the named columns: a draft is no figure for a dashboard, and with a token a reader could end a
-- worker's turn. Of bridge.distress nothing: it tells of people's health. REVOKE ends a grant on the whole table.
GRANT USAGE ON SCHEMA bridge TO {role};
GRANT SELECT ON bridge.events, bridge.installation, bridge.migrations, bridge.processes, bridge.incidents, bridge.bots,
    bridge.forgotten, bridge.budgets, bridge.notices, bridge.pauses, bridge.disclosures, bridge.disclosing, bridge.indicators,
    bridge.minutes, bridge.actions TO {role};
GRANT SELECT (
    number, turn_id, match_id, bot_id, person_id, model, day, begun_at, ends_at, reserved_in, reserved_out, tokens_in, tokens_out,
    outcome) ON bridge.calls TO {role};
GRANT SELECT (turn_id, number, deliver_at, message_id, delivered_at) ON bridge.parts TO {role};
REVOKE SELECT ON bridge.turns FROM {role};
GRANT SELECT (
    id, kind, match_id, bot_id, state, due_at, deliver_at, opened_at, planned_at, queued_at, claimed_at, answered_at, ended_at,
    pushes, attempts, takeovers, merges, covers, reply_message_id, retry_at, overtakes, plain, held, held_until,
    held_limit, action, parts, parts_out, part_at, follows, follow_up_at, follow_up_after,
    reason, typing_at, last_error) ON bridge.turns TO {role}
