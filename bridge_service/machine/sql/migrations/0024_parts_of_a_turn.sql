-- Found by: EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('bridge.turns') AND attname = 'parts_out' AND NOT attisdropped)
-- What a step has to know of a reply of several messages before it looks into bridge.parts.
ALTER TABLE bridge.turns
    ADD COLUMN parts     integer,                     -- messages of the reply; NULL: one, and no row in bridge.parts
    ADD COLUMN parts_out integer NOT NULL DEFAULT 0,  -- how many of them are delivered (P0)
    ADD COLUMN part_at   timestamptz,                 -- when the next one may be delivered, once one is (P1)
    ADD COLUMN said      text[],                      -- of the conversation's interrupted reply: what was delivered, and
    ADD COLUMN withheld  text[];                      -- what was not; erased when this turn ends (P3)
