-- llm_enrich: a column filled in committed chunks
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS llm_ext;
RESET client_min_messages;
CREATE TABLE reviews ("Key" int, part text, body text, n int, PRIMARY KEY ("Key", part));
INSERT INTO reviews SELECT i, 'a', 'text number ' || i FROM generate_series(1, 25) i;
-- one row too long, one whose expression fails, one without an answer
UPDATE reviews SET body = repeat('word ', 5000) WHERE "Key" = 7;
UPDATE reviews SET body = 'zero' WHERE "Key" = 12;
UPDATE reviews SET body = NULL WHERE "Key" = 19;
CALL llm_enrich('reviews', 'n',
	$$CASE WHEN body = 'zero' THEN 1 / (length(body) - 4)
	  ELSE cardinality(llm_embed(body)) END$$, '"Key" < 23', 10);
SELECT count(*), count(n), count(DISTINCT n), min("Key") FILTER (WHERE n IS NULL AND "Key" > 19) AS left_over
FROM reviews;
SELECT relation, column_name, key, sqlstate, left(reason, 40) AS reason FROM llm.enrich_failures ORDER BY key;
SELECT relation, column_name, state, rows_done, rows_failed FROM llm.enrich_progress;
-- once more: what failed is passed by, what is new is done
CALL llm_enrich('reviews', 'n', 'cardinality(llm_embed(body))');
SELECT "Key" FROM reviews WHERE n IS NULL ORDER BY 1;
SELECT state, rows_done, rows_failed FROM llm.enrich_progress ORDER BY id DESC LIMIT 1;
-- with what failed
UPDATE reviews SET body = 'short enough' WHERE "Key" IN (7, 19);
CALL llm_enrich('reviews', 'n', 'cardinality(llm_embed(body))', retry_failed => true, rows_per_commit => 1);
SELECT count(*), count(n) FROM reviews;
SELECT count(*) FROM llm.enrich_failures;
\set VERBOSITY terse
-- an error that is no row's ends the job; what was committed stays
UPDATE reviews SET n = NULL;
CALL llm_enrich('reviews', 'n', $$cardinality(llm_embed(body, '{"model": "nobody"}'))$$);
SELECT state, rows_done, rows_failed FROM llm.enrich_progress ORDER BY id DESC LIMIT 1;
-- mistakes
CALL llm_enrich('reviews', 'nowhere', '1');
CALL llm_enrich('reviews', 'n', '''one''::text');
CALL llm_enrich('reviews', 'n', 'no_such_column');
CALL llm_enrich('reviews', 'n', '1', rows_per_commit => 0);
CREATE TABLE keyless (body text, n int);
CALL llm_enrich('keyless', 'n', '1');
-- odd names, partitions, and a column of the same name as ours
CREATE TABLE "Odd ""Name" (key int PRIMARY KEY, "the value" text) PARTITION BY LIST (key);
CREATE TABLE odd_1 PARTITION OF "Odd ""Name" FOR VALUES IN (1, 2);
CREATE TABLE odd_2 PARTITION OF "Odd ""Name" DEFAULT;
INSERT INTO "Odd ""Name" SELECT generate_series(1, 5);
CALL llm_enrich('"Odd ""Name"', 'the value', $$CASE WHEN key = 3 THEN NULL ELSE 'v' || key END -- a comment$$, 'key <> 5 -- another');
SELECT tableoid::regclass, * FROM "Odd ""Name" ORDER BY key;
SELECT key, sqlstate FROM llm.enrich_failures WHERE relation = '"Odd ""Name"'::regclass;
-- as an ordinary role: its own rows, its own jobs
CREATE ROLE regress_enricher;
CREATE TABLE guarded (id int PRIMARY KEY, owner name, v text);
INSERT INTO guarded VALUES (1, 'regress_enricher'), (2, 'somebody'), (3, 'regress_enricher');
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON guarded USING (owner = current_user);
GRANT SELECT, UPDATE ON guarded TO regress_enricher;
SET ROLE regress_enricher;
CALL llm_enrich('guarded', 'v', '''seen''');
CALL llm_enrich('reviews', 'n', '1');
SELECT relation, state, rows_done FROM llm.enrich_progress;
SELECT count(*) FROM llm.enrich_failures;
RESET ROLE;
SELECT * FROM guarded ORDER BY id;
DROP TABLE reviews, keyless, "Odd ""Name", guarded;
DELETE FROM llm.enrich_jobs;
DELETE FROM llm.enrich_failures;
DROP ROLE regress_enricher;
