-- Errors after which a turn is dead: of its responder, of its delivery, or of what it had to read.
CREATE OR REPLACE FUNCTION bridge.max_attempts() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 5';
