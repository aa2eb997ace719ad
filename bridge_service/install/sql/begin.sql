INSERT INTO bridge.installation DEFAULT VALUES
ON CONFLICT (one) DO UPDATE SET installed_at = clock_timestamp();
INSERT INTO bridge.bots (scope) VALUES ('environment'), ('default') ON CONFLICT DO NOTHING
