-- Found by: to_regclass('bridge.parts') IS NOT NULL
-- The messages of one reply, each delivered once and in order. No step writes a row yet. `content` is erased when the
-- turn ends.
CREATE TABLE bridge.parts (
    turn_id      bigint NOT NULL,  -- no foreign key: an operator may TRUNCATE turns and events
    number       integer NOT NULL CHECK (number > 0),
    content      text,
    deliver_at   timestamptz NOT NULL,
    message_id   uuid NOT NULL UNIQUE,
    delivered_at timestamptz,
    PRIMARY KEY (turn_id, number)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
