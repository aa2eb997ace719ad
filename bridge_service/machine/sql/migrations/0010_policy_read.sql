-- Found by: EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('bridge.turns') AND attname = 'planned_at' AND NOT attisdropped)
-- `planned_at` is when the group of a reply was to close by the policy of that moment. It never moves, so `report` judges a
-- push by it after the policy has changed. NULL: opened before this migration.
ALTER TABLE bridge.turns ADD COLUMN planned_at timestamptz;

-- What the process's environment sets of the policy, by column of bridge.bots, for `check`. NULL: not known.
ALTER TABLE bridge.processes ADD COLUMN environment jsonb;

-- `bots set` names the variables by the constraint that refused them.
DO $$
DECLARE
    v_constraint record;
BEGIN
    FOR v_constraint IN
        SELECT k.conname, CASE WHEN pg_get_constraintdef(k.oid) LIKE '%initiation_delay_min%' THEN 'bots_initiation_delay'
                               WHEN pg_get_constraintdef(k.oid) LIKE '%thinking_delay_min%' THEN 'bots_thinking_delay'
                               ELSE 'bots_bot_id' END AS called
        FROM pg_constraint k
        WHERE k.conrelid = 'bridge.bots'::regclass AND k.contype = 'c' AND cardinality(k.conkey) = 2
          AND k.conname ~ '^bots_check\d*$'
    LOOP
        EXECUTE format('ALTER TABLE bridge.bots RENAME CONSTRAINT %I TO %I', v_constraint.conname, v_constraint.called);
    END LOOP;
END
$$;
