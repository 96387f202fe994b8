-- The calls of many rows side by side: plans, counts, equal answers.
SET client_min_messages = warning;
CREATE TABLE words (id int PRIMARY KEY, word text, kind int, alone boolean);
INSERT INTO words SELECT i, (ARRAY['red', 'green', 'blue', 'night', 'day'])[1 + i % 5] || i / 5,
	i % 3, i % 4 = 0 FROM generate_series(1, 24) i;
CREATE TABLE answers (id int PRIMARY KEY, answer text);
ANALYZE words;
CREATE FUNCTION say(text) RETURNS text LANGUAGE sql AS $$
	SELECT llm_generate($1, NULL, '{"temperature": 0, "max_tokens": 3}') $$;
CREATE FUNCTION is_good(text) RETURNS boolean LANGUAGE sql AS $$
	SELECT llm_generate($1, NULL, '{"temperature": 0, "max_tokens": 3}') <> 'x' $$;

-- what EXPLAIN ANALYZE says of a key, summed over all nodes of ours
CREATE FUNCTION explained(query text, key text) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE plan jsonb;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, FORMAT json) ' || query INTO plan;
	RETURN (SELECT sum((n->>key)::numeric)
		FROM jsonb_path_query(plan, '$.**{0 to last} ? (@."Custom Plan Provider" == "LlmBatch")', '{}', true) n);
END $$;

-- plans
EXPLAIN (COSTS OFF) SELECT id, say(word) FROM words;
EXPLAIN (COSTS OFF, VERBOSE) SELECT id, upper(say(word)), say(say(word)) FROM words;
EXPLAIN (COSTS OFF) SELECT id FROM words WHERE is_good(word) AND kind = 1;
EXPLAIN (COSTS OFF) SELECT id, CASE WHEN alone THEN say(word) WHEN kind = 1 THEN word ELSE say('x') END FROM words;
EXPLAIN (COSTS OFF) SELECT id, say(word) FROM words ORDER BY id LIMIT 3;
EXPLAIN (COSTS OFF) SELECT kind, string_agg(say(word), ' ' ORDER BY id) FROM words GROUP BY kind;
EXPLAIN (COSTS OFF) SELECT id, s FROM words, LATERAL (SELECT say(word) AS s) l;
EXPLAIN (COSTS OFF) UPDATE words SET word = say(word) WHERE alone;
EXPLAIN (COSTS OFF) INSERT INTO answers SELECT id, say(word) FROM words;
EXPLAIN (COSTS OFF) MERGE INTO answers a USING (SELECT id, say(word) AS s FROM words) w ON a.id = w.id
	WHEN MATCHED THEN UPDATE SET answer = s WHEN NOT MATCHED THEN INSERT VALUES (w.id, s);
SET llm_ext.enable_batching = off;
EXPLAIN (COSTS OFF) SELECT id, say(word) FROM words;
RESET llm_ext.enable_batching;

-- what stays one by one: one row, volatile arguments, volatile conditions
EXPLAIN (COSTS OFF) SELECT say('alone');
EXPLAIN (COSTS OFF) SELECT say(word || random()) FROM words;
EXPLAIN (COSTS OFF) SELECT CASE WHEN random() < 0.5 THEN say(word) END FROM words;
EXPLAIN (COSTS OFF) SELECT first_value(say(word)) OVER (ORDER BY id) FROM words;

-- requests, and those that were not needed
SELECT explained('SELECT say(word) FROM words', 'Requests') AS requests,
	explained('SELECT say(word) FROM words', 'Completion Tokens') > 24 AS tokens,
	explained('SELECT say(word) FROM words', 'Most In Flight') AS most;
SET llm_ext.batch_rows = 5;
SELECT explained('SELECT say(word) FROM words', 'Most In Flight') AS most;
RESET llm_ext.batch_rows;
SELECT explained('SELECT say(''same'') FROM words', 'Requests') AS requests,
	explained('SELECT say(''same'') FROM words', 'Duplicates Saved') AS saved;
SELECT explained('SELECT CASE WHEN alone THEN say(word) END FROM words', 'Requests') AS requests;
SELECT explained('SELECT coalesce(nullif(word, ''red1''), say(word)) FROM words', 'Requests') AS requests;
SELECT explained('SELECT alone AND is_good(word) FROM words', 'Requests') AS requests,
	explained('SELECT alone OR is_good(word) FROM words', 'Requests') AS requests;
SELECT explained('SELECT id FROM words WHERE is_good(word) AND kind = 1', 'Requests') AS requests;
SELECT explained('SELECT say(word) FROM words ORDER BY id LIMIT 3', 'Requests') AS requests;
SELECT explained('SELECT say(nullif(word, ''red1'')) FROM words', 'Requests') AS requests;

-- a NULL of another type is another argument
SELECT pg_typeof(a) AS a, pg_typeof(b) AS b, a IS NULL AS null_a, length(b) > 0 AS text_b
FROM (SELECT llm_extract(word, NULL::int, options => '{"temperature": 0}') AS a,
		llm_extract(word, NULL::text, options => '{"temperature": 0, "max_tokens": 100}') AS b
	FROM words WHERE id = 1 OFFSET 0) q;

-- the same answers as one by one
CREATE TABLE batched AS SELECT id, say(word) AS s FROM words;
SET llm_ext.enable_batching = off;
CREATE TABLE alone AS SELECT id, say(word) AS s FROM words;
RESET llm_ext.enable_batching;
SELECT count(*) AS n, count(*) FILTER (WHERE b.s IS DISTINCT FROM a.s) AS n_different
FROM batched b FULL JOIN alone a USING (id);
INSERT INTO answers SELECT id, say(word) FROM words WHERE id <= 12;
UPDATE answers SET answer = say(word) FROM words w WHERE w.id = answers.id;
MERGE INTO answers a USING (SELECT id, say(word) AS s FROM words WHERE id > 6) w ON a.id = w.id
	WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (w.id, s);
SELECT count(*) AS n, count(*) FILTER (WHERE answer IS DISTINCT FROM s) AS n_different
FROM answers JOIN alone USING (id);
CREATE MATERIALIZED VIEW kept AS SELECT id, say(word) AS s FROM words;
REFRESH MATERIALIZED VIEW kept;
SELECT count(*) AS n, count(*) FILTER (WHERE k.s IS DISTINCT FROM a.s) AS n_different
FROM kept k JOIN alone a USING (id);
COPY (SELECT id, say(word) = (SELECT s FROM alone a WHERE a.id = w.id) FROM words w WHERE id < 4 ORDER BY id) TO STDOUT;
SELECT w.id, l.s = a.s AS equal FROM words w CROSS JOIN LATERAL (SELECT say(w.word) AS s) l
JOIN alone a USING (id) WHERE id < 4 ORDER BY id;

-- a request that fails is an error of its row, or NULL
SELECT count(r) FROM (SELECT llm_generate(repeat('long ', CASE WHEN id = 7 THEN 20000 ELSE 1 END), NULL,
	'{"max_tokens": 1, "on_error": "null"}') AS r FROM words OFFSET 0) q;
\set VERBOSITY terse
SELECT llm_generate(word, NULL, CASE WHEN id = 7 THEN '{"max_tokens": -5}' ELSE '{"max_tokens": 1}' END::jsonb)
FROM words;
\set VERBOSITY default

DROP MATERIALIZED VIEW kept;
DROP TABLE batched, alone, answers, words;
DROP FUNCTION explained(text, text), say(text), is_good(text);
