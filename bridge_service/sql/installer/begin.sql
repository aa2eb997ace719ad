INSERT INTO bridge.installation DEFAULT VALUES
ON CONFLICT (one) DO UPDATE SET installed_at = clock_timestamp()
