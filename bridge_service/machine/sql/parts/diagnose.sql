-- What an error of the app's table is called, whose fault it is, and whether another text could mend it. PostgreSQL's
-- own words quote the row, so only the names that its diagnostics give are told.
--
-- blame: as bridge.blame says, except that a missing partition is no fault of the text
-- named: SQLSTATE, constraint, column, table or type, and the limit of a `varchar(n)`: these may be logged
-- words: the same, and what a trigger or function of the app's raised; for the turn's row and never for a log
-- refused: what the responder is told if the table refuses what the reply says; NULL if no other text would be taken
CREATE OR REPLACE FUNCTION bridge.diagnose(
    p_state text, p_message text, p_context text, p_schema text, p_table text, p_column text, p_constraint text, p_type text,
    OUT blame text, OUT named text, OUT words text, OUT refused text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    -- Whether a RAISE made the error: the first line of its context says so. A RAISE may give any text as a
    -- constraint's name, even a message's.
    v_raised boolean := p_state LIKE 'P0%' OR split_part(p_context, E'\n', 1) ~ '\mRAISE\M';
    v_place  text := concat_ws(' of ',
        'column ' || nullif(p_column, ''),
        CASE WHEN p_type <> '' THEN format('type %s.%s', p_schema, p_type) END,
        CASE WHEN p_table <> '' THEN format('table %s.%s', p_schema, p_table) END);
    v_check  text;
    v_mends  boolean;  -- whether another text may be taken
BEGIN
    blame := CASE WHEN p_state = '23514' AND p_constraint = '' AND p_table <> '' THEN 'rights' ELSE bridge.blame(p_state) END;
    words := concat_ws(' ', p_state, nullif(p_constraint, ''), '(' || nullif(v_place, '') || ')');
    IF v_raised THEN
        named := p_state;
        words := concat_ws(' ', words, p_message);
    ELSE
        IF p_state = '22001' THEN  -- of PostgreSQL's words only what has the form of a type
            words := concat_ws(' ', words, substring(p_message FROM '(?:character varying|character)\(\d+\)'));
        END IF;
        named := words;
        SELECT pg_get_constraintdef(k.oid) INTO v_check
        FROM pg_constraint k
        JOIN pg_namespace n ON n.oid = k.connamespace
        LEFT JOIN pg_class r ON r.oid = k.conrelid
        LEFT JOIN pg_type d ON d.oid = k.contypid
        WHERE k.conname = p_constraint AND n.nspname = p_schema AND k.contype = 'c'
          AND (r.relname = p_table OR d.typname = p_type);
    END IF;

    v_mends := CASE blame
        WHEN 'text' THEN true
        -- Only a key of the text. Any other key may say that this very reply is there already.
        WHEN 'key' THEN NOT v_raised AND EXISTS (
            SELECT FROM pg_index i
            JOIN pg_class k ON k.oid = i.indexrelid
            JOIN pg_namespace n ON n.oid = k.relnamespace
            WHERE k.relname = p_constraint AND n.nspname = p_schema AND NOT i.indisprimary
              AND pg_get_indexdef(i.indexrelid) ~ '\mcontent\M')
        WHEN 'app' THEN v_raised
        ELSE false
    END;
    IF v_mends THEN
        refused := left(concat_ws(': ', words, v_check), 500);
    END IF;
END
$$;
