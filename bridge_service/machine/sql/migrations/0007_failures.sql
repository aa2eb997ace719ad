-- Found by: EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('bridge.turns') AND attname = 'retry_at' AND NOT attisdropped)
-- A turn that failed waits until `retry_at`, whatever is pushed before (T5). `due_at` says when to push and moves;
-- `retry_at` does not. `refused` is why the app's table refused the last draft, for the responder; erased with the turn.
ALTER TABLE bridge.turns
    ADD COLUMN retry_at timestamptz,
    ADD COLUMN refused text;

-- A push before `retry_at` would find nothing to do. NOT VALID: the present rows have no `retry_at`, so nothing is read.
ALTER TABLE bridge.turns ADD CONSTRAINT turns_no_push_before_retry CHECK (due_at >= retry_at) NOT VALID;
