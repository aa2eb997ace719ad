-- Found by: to_regclass('bridge.incidents') IS NOT NULL
-- What the bridge notes about itself, for `report` and `status`. No step reads any of it: were these tables empty or gone,
-- no turn would move otherwise.

-- When the event found its turn; set once, with turn_id, so it costs no write of its own.
ALTER TABLE bridge.events ADD COLUMN grouped_at timestamptz;

-- One row a process, rewritten at each beat. Who stops in order says so; who was killed is merely no longer seen.
CREATE TABLE bridge.processes (
    id             uuid PRIMARY KEY,  -- drawn by the process when it starts
    role           text NOT NULL CHECK (role IN ('scheduler', 'worker')),
    started_at     timestamptz NOT NULL,
    seen_at        timestamptz NOT NULL,
    ended_at       timestamptz,
    rss_bytes      bigint NOT NULL,
    rss_peak_bytes bigint NOT NULL,
    cpu_seconds    double precision NOT NULL  -- since it started
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- What only a process can know: that Redis or PostgreSQL was away, that it fell. At most one row a second, kind and
-- process; what could not be written while PostgreSQL was away comes later, as one row.
CREATE TABLE bridge.incidents (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL CHECK (kind ~ '^[a-z_]{1,40}$'),
    role        text NOT NULL CHECK (role IN ('scheduler', 'worker')),
    happened_at timestamptz NOT NULL,  -- the first of them
    times       integer NOT NULL CHECK (times > 0)
);
CREATE INDEX incidents_happened ON bridge.incidents (happened_at);

ALTER TABLE bridge.processes ENABLE ROW LEVEL SECURITY;
ALTER TABLE bridge.incidents ENABLE ROW LEVEL SECURITY;
