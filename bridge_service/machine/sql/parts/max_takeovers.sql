-- Leases of one turn that may run out before it is dead: its responder kills its workers, or hangs (A1).
CREATE OR REPLACE FUNCTION bridge.max_takeovers() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 20';
