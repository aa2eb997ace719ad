-- Whether the bot left this conversation (leave.sql): its messages are captured and not answered until `resume`.
-- Without SET and rights of its own it is a part of the statement that calls it.
CREATE OR REPLACE FUNCTION bridge.is_left(p_match uuid) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM bridge.pauses p WHERE p.match_id = p_match AND p.cause = 'left')
$$;
