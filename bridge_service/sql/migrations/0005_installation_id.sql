-- Tells this installation from another one in the same database, before or after it. bridge.queue_id() says where it counts.
ALTER TABLE bridge.installation ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid();
