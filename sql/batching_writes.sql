-- Calls of statements that write: RETURNING, actions of MERGE, VALUES.
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
		FROM jsonb_path_query(plan, 'strict $.** ? (@."Custom Plan Provider" == "LlmBatch")', '{}', true) n);
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

-- actions of MERGE: where the join sees which one will be taken
EXPLAIN (COSTS OFF) MERGE INTO words w USING alone a ON w.id = a.id
	WHEN MATCHED AND kind = 1 THEN UPDATE SET word = say(w.word || a.s)
	WHEN MATCHED AND kind = 2 THEN DELETE
	WHEN MATCHED THEN UPDATE SET word = say(say(a.s))
	WHEN NOT MATCHED THEN INSERT VALUES (a.id, say(a.s));
EXPLAIN (COSTS OFF) MERGE INTO words w USING alone a ON w.id = a.id
	WHEN MATCHED AND say(w.word) = 'x' THEN UPDATE SET word = say(a.s);
EXPLAIN (COSTS OFF) MERGE INTO words w USING alone a ON w.id = a.id
	WHEN MATCHED AND random() < 0.5 THEN DELETE WHEN MATCHED THEN UPDATE SET word = say(a.s);
BEGIN;
DELETE FROM words WHERE id > 20;
SELECT count(*) FILTER (WHERE w.kind = 1) AS matched, count(*) FILTER (WHERE w.id IS NULL) AS not_matched
FROM words w RIGHT JOIN alone a USING (id);
SELECT explained('MERGE INTO words w USING alone a ON w.id = a.id
	WHEN MATCHED AND kind = 1 THEN UPDATE SET kind = length(say(w.word)) WHEN MATCHED AND kind = 2 THEN DELETE
	WHEN NOT MATCHED THEN INSERT VALUES (a.id, say(a.id || ''?''))', 'Requests') AS requests;
ROLLBACK;
BEGIN;
DELETE FROM words WHERE id > 20;
MERGE INTO words w USING alone a ON w.id = a.id WHEN MATCHED THEN UPDATE SET word = say(w.word)
	WHEN NOT MATCHED THEN INSERT VALUES (a.id, a.s);
SELECT count(*) AS n, count(*) FILTER (WHERE word IS DISTINCT FROM s) AS n_different FROM words JOIN alone USING (id);
ROLLBACK;

-- VALUES: rows of one form, or of some
EXPLAIN (COSTS OFF, VERBOSE) INSERT INTO words VALUES (101, say('a')), (102, say('b')), (103, say('c'));
EXPLAIN (COSTS OFF, VERBOSE) INSERT INTO words VALUES (101, say('a')), (102, 'b'), (103, upper(say('c'))), (104, say('d'));
EXPLAIN (COSTS OFF) SELECT * FROM (VALUES (1, say('a')), (2, say('b'))) v(n, s) WHERE n > 1 AND s > 'x';
BEGIN;
SELECT explained('INSERT INTO words VALUES (101, say(''a'')), (102, say(''b'')), (103, ''c''), (104, say(''a''))', 'Requests') AS requests,
	explained('INSERT INTO words VALUES (105, say(''a'')), (106, say(''b'')), (107, ''c''), (108, say(''a''))', 'Duplicates Saved') AS saved;
DELETE FROM words;
INSERT INTO words (id, word) VALUES (1, say('green0')), (2, say('blue0')), (3, upper(say('night0')));
SELECT id, CASE id WHEN 3 THEN word = upper(s) ELSE word = s END AS equal FROM words JOIN alone USING (id) ORDER BY id;
ROLLBACK;

DROP TABLE alone, words;
DROP FUNCTION explained(text, text), say(text);
