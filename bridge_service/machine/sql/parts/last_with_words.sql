-- The place of the last text that contains one of these words or phrases, or NULL. They are found whole, in capitals or not.
-- Whatever is neither a letter nor a digit only parts words, so a line break or another apostrophe makes no difference. An
-- accent does. In a database of another encoding than UTF8, whatever is not ASCII is a letter, and has the capital that the
-- collation gives it. It reads the last 200,000 characters, or a claim of very long messages would take too long.
CREATE OR REPLACE FUNCTION bridge.last_with_words(p_texts text[], p_words text[]) RETURNS integer
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    c_most    CONSTANT integer := 200000;
    c_utf8    CONSTANT boolean := getdatabaseencoding() = 'UTF8';
    -- ASCII without letters and digits; signs of Latin-1; punctuation and symbols; signs of Asian scripts; emoji.
    c_apart   CONSTANT text := CASE WHEN c_utf8 THEN
        '[\x01-/:-@\[-`{-\xa9\xab-\xb4\xb6-\xb9\xbb-\xbf\xd7\xf7\u2000-\u2bff\u3000-\u303f\ufe00-\ufe0f\U0001f000-\U0001faff]+'
        ELSE '[\x01-/:-@\[-`{-\x7f]+' END;
    -- Of Latin-1 and two letters more, since a collation may know no capitals beyond ASCII.
    c_capital CONSTANT text := CASE WHEN c_utf8 THEN
        (SELECT string_agg(chr(i), '') FROM generate_series(192, 222) AS i WHERE i <> 215) || chr(338) || chr(376) END;
    c_small   CONSTANT text := CASE WHEN c_utf8 THEN
        (SELECT string_agg(chr(i + 32), '') FROM generate_series(192, 222) AS i WHERE i <> 215) || chr(339) || chr(255) END;
BEGIN
    RETURN (
        WITH heard AS MATERIALIZED (
            SELECT s.place, ' ' || btrim(regexp_replace(lower(
                       -- An accent may be a character of its own.
                       CASE WHEN c_utf8 THEN translate(normalize(s.text), c_capital, c_small) ELSE s.text END),
                       c_apart, ' ', 'g')) || ' ' AS words
            FROM (SELECT NULL::integer AS place, w.text FROM unnest(p_words) AS w (text)
                  UNION ALL
                  SELECT t.place, left(t.text, c_most)
                  FROM (SELECT n.place::integer, n.text, sum(length(n.text)) OVER (ORDER BY n.place DESC) - length(n.text) AS later
                        FROM unnest(p_texts) WITH ORDINALITY AS n (text, place)) t
                  WHERE t.later < c_most) s)
        SELECT max(t.place) FROM heard t
        WHERE t.place IS NOT NULL AND EXISTS (
            SELECT FROM heard w WHERE w.place IS NULL AND w.words <> '  ' AND strpos(t.words, w.words) > 0));
END
$$;
