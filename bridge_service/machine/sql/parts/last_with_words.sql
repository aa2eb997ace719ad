-- The place of the last text that contains one of these words or phrases, or NULL. They are found whole, in capitals or not.
-- Whatever is neither a letter nor a digit only parts words, so a line break or another apostrophe makes no difference. An
-- accent does. Letters and capitals are those of Unicode's first blocks, whatever the database's collation knows; in a
-- database of another encoding than UTF8, a letter beyond ASCII has the capital that the collation gives it.
--
-- It reads the last million characters. PostgreSQL compiles the one pattern of all words, so many words cost little.
CREATE OR REPLACE FUNCTION bridge.last_with_words(p_texts text[], p_words text[]) RETURNS integer
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    c_utf8    CONSTANT boolean := getdatabaseencoding() = 'UTF8';
    -- ASCII without letters and digits; signs of Latin-1; punctuation and symbols; signs of Asian scripts; emoji.
    c_apart   CONSTANT text := CASE WHEN c_utf8 THEN
        '[\x01-/:-@\[-`{-\xa9\xab-\xb4\xb6-\xb9\xbb-\xbf\xd7\xf7\u2000-\u2bff\u3000-\u303f\ufe00-\ufe0f\U0001f000-\U0001faff]'
        ELSE '[\x01-/:-@\[-`{-\x7f]' END;
    v_left    bigint := 1000000;
    v_pattern text;
    v_text    text;
BEGIN
    SELECT string_agg(replace(w.words, ' ', c_apart || '+'), '|') INTO v_pattern
    FROM (SELECT btrim(regexp_replace(lower(CASE WHEN c_utf8 THEN normalize(p) ELSE p END), c_apart || '+', ' ', 'g')) AS words
          FROM unnest(p_words) AS p) w
    WHERE w.words <> '';
    IF v_pattern IS NULL THEN
        RETURN NULL;
    END IF;
    IF c_utf8 THEN  -- a collation may know no capitals beyond ASCII: accept both, of Latin-1 and of two letters more
        FOR i IN 192..222 LOOP
            CONTINUE WHEN i = 215;
            v_pattern := regexp_replace(
                v_pattern, format('[%s%s]', chr(i), chr(i + 32)), format('[%s%s]', chr(i), chr(i + 32)), 'g');
        END LOOP;
        v_pattern := regexp_replace(v_pattern, format('[%s%s]', chr(338), chr(339)), format('[%s%s]', chr(338), chr(339)), 'g');
        v_pattern := regexp_replace(v_pattern, format('[%s%s]', chr(376), chr(255)), format('[%s%s]', chr(376), chr(255)), 'g');
    END IF;
    v_pattern := format('(?:^|%1$s)(?:%2$s)(?:%1$s|$)', c_apart, v_pattern);
    FOR i IN REVERSE cardinality(p_texts)..1 LOOP
        v_text := left(p_texts[i], v_left::integer);
        v_left := v_left - length(v_text);
        IF lower(CASE WHEN c_utf8 THEN normalize(v_text) ELSE v_text END) ~ v_pattern THEN  -- an accent may stand apart
            RETURN i;
        END IF;
        EXIT WHEN v_left <= 0;
    END LOOP;
    RETURN NULL;
END
$$;
