-- Calls of statements that write: what RETURNING computes.
SET client_min_messages = warning;
CREATE TABLE words (id int PRIMARY KEY, word text, kind int);
INSERT INTO words SELECT i, (ARRAY['red', 'green', 'blue', 'night', 'day'])[1 + i % 5] || i / 5, i % 3
	FROM generate_series(1, 24) i;
ANALYZE words;
CREATE FUNCTION say(text) RETURNS text LANGUAGE sql AS $$
	SELECT llm_generate($1, NULL, '{"temperature": 0, "max_tokens": 3}') $$;
CREATE TABLE alone AS SELECT id, say(word) AS s FROM words;

-- what EXPLAIN ANALYZE says of a key, summed over all nodes of ours
CREATE FUNCTION explained(query text, key text) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE plan jsonb;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, FORMAT json) ' || query INTO plan;
	RETURN (SELECT sum((n->>key)::numeric)
		FROM jsonb_path_query(plan, '$.**{0 to last} ? (@."Custom Plan Provider" == "LlmBatch")', '{}', true) n);
END $$;

-- RETURNING
EXPLAIN (COSTS OFF, VERBOSE) UPDATE words SET kind = 0 WHERE kind = 1 RETURNING id, say(word), words, say(say(word));
EXPLAIN (COSTS OFF) INSERT INTO words SELECT 100 + id, word FROM words
	RETURNING id, CASE WHEN kind IS NULL THEN say(word) END;
EXPLAIN (COSTS OFF) DELETE FROM words USING alone a WHERE words.id = a.id RETURNING say(word || a.s);
EXPLAIN (COSTS OFF) WITH w AS (UPDATE words SET kind = 0 RETURNING say(word) AS s) SELECT count(s) FROM w;
-- a column with a volatile function is computed as the row is written
EXPLAIN (COSTS OFF, VERBOSE) UPDATE words SET kind = 0
	RETURNING random() > 1, say(word), say(random()::text) IS NULL;
EXPLAIN (COSTS OFF) UPDATE words SET kind = 0 RETURNING say(word || random());
EXPLAIN (COSTS OFF) INSERT INTO words VALUES (1, 'red') ON CONFLICT (id) DO UPDATE SET word = say(words.word) RETURNING id;

BEGIN;
SELECT explained('UPDATE words SET kind = 0 RETURNING say(word)', 'Requests') AS requests,
	explained('UPDATE words SET kind = 0 RETURNING say(word)', 'Most In Flight') AS most;
SELECT explained('UPDATE words SET kind = id % 2 RETURNING CASE kind WHEN 1 THEN say(word) END', 'Requests') AS requests;
WITH w AS (UPDATE words SET word = word RETURNING id, say(word) AS s)
SELECT count(*) AS n, count(*) FILTER (WHERE w.s IS DISTINCT FROM a.s) AS n_different FROM w FULL JOIN alone a USING (id);
DELETE FROM words WHERE id < 4 RETURNING id, say(word) = (SELECT s FROM alone a WHERE a.id = words.id) AS equal, words;
ROLLBACK;

DROP TABLE alone, words;
DROP FUNCTION explained(text, text), say(text);
