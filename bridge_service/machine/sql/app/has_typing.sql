-- Whether the app has indicators: by default, whether `migrate` found a table `typing_events` that fits. An app that keeps
-- its indicators elsewhere replaces this function by one that returns true, and show_typing and is_typing with it; `migrate`
-- leaves replaced ones alone. As persona.sql, PostgreSQL inlines it, so the steps of an installation without indicators do
-- nothing about them.
CREATE OR REPLACE FUNCTION bridge.has_typing() RETURNS boolean
LANGUAGE sql STABLE AS $$ SELECT {has typing_events} $$;
