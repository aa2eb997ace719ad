INSERT INTO bridge.installation (profiles, matches, messages, laid_for)
VALUES ({profiles}, {matches}, {messages}, ARRAY[{profiles}, {matches}, {messages}])
ON CONFLICT (one) DO UPDATE
SET profiles = EXCLUDED.profiles, matches = EXCLUDED.matches, messages = EXCLUDED.messages, laid_for = EXCLUDED.laid_for
