-- Found by: EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('bridge.installation') AND attname = 'id' AND NOT attisdropped)
-- Tells this installation from another one in the same database, before or after it. bridge.queue_id() says where it counts.
ALTER TABLE bridge.installation ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid();
