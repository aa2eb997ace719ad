INSERT INTO bridge.installation (profiles, matches, messages, typing_events, laid_for)
VALUES ({profiles}, {matches}, {messages}, {typing_events}, ARRAY[{profiles}, {matches}, {messages}, {typing_events}])
ON CONFLICT (one) DO UPDATE
SET profiles = EXCLUDED.profiles, matches = EXCLUDED.matches, messages = EXCLUDED.messages,
    typing_events = EXCLUDED.typing_events, laid_for = EXCLUDED.laid_for
